#!/usr/bin/env python3
"""Draws a terminal as an SVG image, from the text with escape sequences that tmux captures.

    tmux new-session -d -x 80 -y 24 -s view "temper run recipes/quickstart.toml --log full"
    tmux capture-pane -e -p -t view | docs/images/terminal_svg.py 80 24 > docs/images/view-80x24.svg
"""

import re
import sys
from html import escape

WIDTH, HEIGHT, MARGIN = 8.4, 17, 12
BACKGROUND, TEXT = "#15181c", "#d7dadf"
# The sixteen colours of a terminal, by their codes: 30 to 37 and 90 to 97.
COLORS = "#4a4f57 #e06c75 #98c379 #e5c07b #61afef #c678dd #56b6c2 #d7dadf".split()
BRIGHT = "#7f8691 #ff7b86 #b5e08f #ffd68a #82c7ff #dd9bf0 #76d3df #ffffff".split()


def indexed(n):
    """A colour of the palette of 256."""
    if n < 16:
        return (COLORS + BRIGHT)[n]
    if n >= 232:
        return "#" + f"{8 + 10 * (n - 232):02x}" * 3
    levels = [0, 95, 135, 175, 215, 255]
    n -= 16
    return "#" + "".join(f"{levels[n // step % 6]:02x}" for step in (36, 6, 1))


def styled(style, codes):
    """The style after an escape sequence."""
    codes = [int(code or 0) for code in codes.split(";")]
    style = dict(style)
    while codes:
        code = codes.pop(0)
        if code == 0:
            style = {}
        elif code in (1, 2, 7):
            style[code] = True
        elif code == 22:
            style.pop(1, None)
            style.pop(2, None)
        elif code == 27:
            style.pop(7, None)
        elif code in (38, 48):
            kind = codes.pop(0)
            if kind == 5:
                color = indexed(codes.pop(0))
            else:
                color = "#" + "".join(f"{codes.pop(0):02x}" for _ in range(3))
            style["text" if code == 38 else "fill"] = color
        elif code in (39, 49):
            style.pop("text" if code == 39 else "fill", None)
        elif 30 <= code <= 37 or 40 <= code <= 47:
            style["text" if code < 40 else "fill"] = COLORS[code % 10]
        elif 90 <= code <= 97 or 100 <= code <= 107:
            style["text" if code < 100 else "fill"] = BRIGHT[code % 10]
    return style


def runs(line, style):
    """Pieces of a line as (first column, text, style), and the style at its end."""
    pieces, column = [], 0
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if part.startswith("\x1b["):
            style = styled(style, part[2:-1])
        elif part:
            pieces.append((column, part, style))
            column += len(part)
    return pieces, style


def draw(column, row, text, style):
    """A piece as SVG. Its words have their own positions, so that a font with other widths keeps the columns."""
    x, y = MARGIN + column * WIDTH, MARGIN + row * HEIGHT
    color, fill = style.get("text", TEXT), style.get("fill")
    if style.get(7):
        color, fill = fill or BACKGROUND, color
    svg = ""
    if fill:
        svg += f'<rect x="{x:.1f}" y="{y}" width="{len(text) * WIDTH:.1f}" height="{HEIGHT}" fill="{fill}"/>'
    attributes = f' fill="{color}"' if color != TEXT else ""
    attributes += ' font-weight="bold"' if style.get(1) else ""
    attributes += ' opacity="0.65"' if style.get(2) else ""
    for word in re.finditer(r"\S+(?: \S+)*", text):
        start, length = x + word.start() * WIDTH, len(word[0]) * WIDTH
        svg += (
            f'<text x="{start:.1f}" y="{y + 13}" textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs"'
            f"{attributes}>{escape(word[0])}</text>"
        )
    return svg


def main():
    columns, rows = int(sys.argv[1]), int(sys.argv[2])
    width, height = columns * WIDTH + 2 * MARGIN, rows * HEIGHT + 2 * MARGIN
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" font-size="14" fill="{TEXT}">'
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>'
    )
    style = {}
    for row, line in enumerate(sys.stdin.read().split("\n")[:rows]):
        pieces, style = runs(line, style)
        for column, text, style_of_piece in pieces:
            print(draw(column, row, text, style_of_piece))
    print("</svg>")


main()
