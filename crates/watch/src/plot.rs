//! A curve in a rectangle of the terminal, of Braille dots, or of ASCII where a terminal has no more.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::numbers::{thousands, value};
use crate::series::Series;

/// Columns of the labels of the vertical axis, with a space.
const LABEL_COLUMNS: u16 = 8;
/// Dots in a cell: two columns and four rows.
const DOTS: (usize, usize) = (2, 4);
/// Bits of a Braille character by row and column.
const BRAILLE: [[u32; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

/// How a plot is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlotStyle {
    pub(crate) curve: Style,
    pub(crate) marks: Style,
    pub(crate) labels: Style,
    pub(crate) unicode: bool,
    /// Whether the vertical axis is logarithmic, where all values are above 0.
    pub(crate) log: bool,
}

/// Draws a curve, and evaluations as marks on it.
pub(crate) fn plot(
    buf: &mut Buffer,
    area: Rect,
    curve: Option<&Series>,
    marks: Option<&Series>,
    style: &PlotStyle,
) {
    if area.width <= LABEL_COLUMNS + 2 || area.height < 2 {
        return;
    }
    let points = |series: Option<&Series>| -> Vec<(u64, f64)> {
        series.map(|series| series.points().collect()).unwrap_or_default()
    };
    let (curve, marks) = (points(curve), points(marks));
    let Some(mut axes) = Axes::of(curve.iter().chain(&marks), style.log) else { return };
    // A line below the curve has the steps.
    let has_steps = area.height >= 5;
    let inner = Rect {
        x: area.x + LABEL_COLUMNS,
        width: area.width - LABEL_COLUMNS,
        height: area.height - u16::from(has_steps),
        ..area
    };
    axes.n_columns = usize::from(inner.width) * DOTS.0;
    axes.n_rows = usize::from(inner.height) * DOTS.1;
    draw_labels(buf, area, inner, &axes, style);
    let mut dots = vec![false; axes.n_columns * axes.n_rows];
    draw_curve(&mut dots, &axes, &curve);
    for y in 0..inner.height {
        for x in 0..inner.width {
            let cell = cell(&dots, &axes, usize::from(x), usize::from(y), style.unicode);
            if cell != ' ' {
                buf[(inner.x + x, inner.y + y)].set_char(cell).set_style(style.curve);
            }
        }
    }
    for (step, value) in marks {
        let (column, row) = (axes.column(step), axes.row(value));
        let x = inner.x + (column / DOTS.0) as u16;
        let y = inner.y + (row / DOTS.1) as u16;
        let mark = if style.unicode { '◆' } else { 'o' };
        buf[(x, y)].set_char(mark).set_style(style.marks);
    }
}

/// The ranges of the axes.
struct Axes {
    first: u64,
    last: u64,
    low: f64,
    high: f64,
    log: bool,
    n_columns: usize,
    n_rows: usize,
}

impl Axes {
    /// The axes of these points; `None` without points.
    fn of<'p>(points: impl Iterator<Item = &'p (u64, f64)> + Clone, log: bool) -> Option<Self> {
        let log = log && points.clone().all(|(_, value)| *value > 0.0);
        let scaled = |value: f64| if log { value.ln() } else { value };
        let (mut first, mut last) = (u64::MAX, 0);
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for (step, value) in points {
            (first, last) = (first.min(*step), last.max(*step));
            (low, high) = (low.min(scaled(*value)), high.max(scaled(*value)));
        }
        if first == u64::MAX {
            return None;
        }
        // A constant is drawn in the middle.
        if high - low < 1e-12 * high.abs().max(1e-300) {
            let margin = (low.abs() * 0.1).max(1e-9);
            (low, high) = (low - margin, high + margin);
        }
        Some(Self { first, last, low, high, log, n_columns: 1, n_rows: 1 })
    }

    fn column(&self, step: u64) -> usize {
        let span = (self.last - self.first).max(1) as f64;
        let part = step.saturating_sub(self.first) as f64 / span;
        (part * (self.n_columns - 1) as f64).round() as usize
    }

    /// Rows count from the top.
    fn row(&self, value: f64) -> usize {
        let value = if self.log { value.ln() } else { value };
        let part = ((self.high - value) / (self.high - self.low)).clamp(0.0, 1.0);
        (part * (self.n_rows - 1) as f64).round() as usize
    }

    /// The value at a part of the height, from the top.
    fn value_at(&self, part: f64) -> f64 {
        let value = self.high - part * (self.high - self.low);
        if self.log { value.exp() } else { value }
    }
}

fn draw_labels(buf: &mut Buffer, area: Rect, inner: Rect, axes: &Axes, style: &PlotStyle) {
    let mut label = |y: u16, part: f64| {
        let text = format!("{:>7}", value(axes.value_at(part)));
        buf.set_stringn(area.x, inner.y + y, text, 7, style.labels);
    };
    label(0, 0.0);
    label(inner.height - 1, 1.0);
    if inner.height >= 7 {
        label((inner.height - 1) / 2, 0.5);
    }
    if inner.height < area.height {
        let y = area.y + area.height - 1;
        let (first, last) = (thousands(axes.first), thousands(axes.last));
        buf.set_stringn(inner.x, y, &first, usize::from(inner.width), style.labels);
        let room = usize::from(inner.width);
        if axes.last > axes.first && first.len() + last.len() + 2 <= room {
            let x = inner.x + (room - last.len()) as u16;
            buf.set_stringn(x, y, &last, last.len(), style.labels);
        }
    }
}

/// Sets the dots of a curve: the mean of the points of each column, joined by lines.
fn draw_curve(dots: &mut [bool], axes: &Axes, points: &[(u64, f64)]) {
    let mut before: Option<(usize, usize)> = None;
    for column in points.chunk_by(|a, b| axes.column(a.0) == axes.column(b.0)) {
        let Some((step, _)) = column.first() else { continue };
        let mean = column.iter().map(|(_, value)| value / column.len() as f64).sum::<f64>();
        let (x, y) = (axes.column(*step), axes.row(mean));
        let (x0, y0) = before.unwrap_or((x, y));
        for at in x0..=x {
            // The line between two points, each of its columns filled from the row before to its own.
            let row = |at: usize| {
                let part = if x > x0 { (at - x0) as f64 / (x - x0) as f64 } else { 1.0 };
                (y0 as f64 + part * (y as f64 - y0 as f64)).round() as usize
            };
            let (from, to) = (row(at.saturating_sub(1).max(x0)), row(at));
            for row in from.min(to)..=from.max(to) {
                if let Some(dot) = dots.get_mut(row * axes.n_columns + at) {
                    *dot = true;
                }
            }
        }
        before = Some((x, y));
    }
}

/// The character of a cell.
fn cell(dots: &[bool], axes: &Axes, x: usize, y: usize, unicode: bool) -> char {
    let is_set = |row: usize, column: usize| {
        let at = (y * DOTS.1 + row) * axes.n_columns + x * DOTS.0 + column;
        dots.get(at).copied().unwrap_or(false)
    };
    if unicode {
        let mut bits = 0;
        for (row, columns) in BRAILLE.iter().enumerate() {
            for (column, bit) in columns.iter().enumerate() {
                bits |= if is_set(row, column) { *bit } else { 0 };
            }
        }
        return char::from_u32(0x2800 + bits).filter(|_| bits > 0).unwrap_or(' ');
    }
    let half = |rows: [usize; 2]| rows.into_iter().any(|row| is_set(row, 0) || is_set(row, 1));
    match (half([0, 1]), half([2, 3])) {
        (true, true) => ':',
        (true, false) => '\'',
        (false, true) => '.',
        (false, false) => ' ',
    }
}

#[cfg(test)]
mod tests {
    use ratatui::buffer::Buffer;
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    use super::{PlotStyle, plot};
    use crate::series::Series;

    fn drawn(points: &[(u64, f64)], marks: &[(u64, f64)], unicode: bool, log: bool) -> String {
        let series = |points: &[(u64, f64)]| {
            let mut series = Series::default();
            for (step, value) in points {
                series.push(*step, *value);
            }
            series
        };
        let area = Rect::new(0, 0, 40, 8);
        let mut buf = Buffer::empty(area);
        let style = Style::default();
        let style = PlotStyle { curve: style, marks: style, labels: style, unicode, log };
        plot(&mut buf, area, Some(&series(points)), Some(&series(marks)), &style);
        let rows = buf.content.chunks(40);
        let text =
            rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>());
        text.map(|row| row.trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn curves() {
        let falling: Vec<(u64, f64)> =
            (1..=300).map(|step| (step, 2.0 + 6.0 / (1.0 + step as f64 / 20.0))).collect();
        let marks = [(100, 3.2), (200, 2.7), (300, 2.5)];
        let mut text = drawn(&falling, &marks, true, false);
        text += &drawn(&falling, &marks, false, true);
        text += &drawn(&[(5, 1e-3)], &[], true, false);
        text += &drawn(&[(1, 0.0), (2, 5.0), (3, -5.0)], &[], true, true);
        text += &drawn(&[], &[(0, 9.0), (20, 4.0)], false, false);
        assert!(drawn(&[], &[], true, false).trim().is_empty());
        insta::assert_snapshot!(text);
    }
}
