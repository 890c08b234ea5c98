//! Frames as the bytes that a terminal understands. They are collected, and written elsewhere.

use std::convert::Infallible;
use std::fmt::Write as _;

use ratatui::backend::{Backend, ClearType, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Position, Size};
use ratatui::style::{Color, Modifier};

/// Size of a terminal that does not say.
const UNKNOWN: (u16, u16) = (80, 24);

/// A backend that collects bytes.
pub(crate) struct AnsiBackend {
    size: fn() -> Option<(u16, u16)>,
    bytes: String,
}

impl AnsiBackend {
    /// A terminal of the size that the function returns.
    pub(crate) fn new(size: fn() -> Option<(u16, u16)>) -> Self {
        Self { size, bytes: String::new() }
    }

    /// The bytes since the last call.
    pub(crate) fn take(&mut self) -> String {
        std::mem::take(&mut self.bytes)
    }

    /// Adds text; writing to a `String` does not fail.
    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.bytes.write_fmt(text);
    }
}

/// The numbers that select the style of a cell.
fn style_codes(cell: &Cell) -> String {
    let mut codes = "0".to_owned();
    for (modifier, code) in [
        (Modifier::BOLD, ";1"),
        (Modifier::DIM, ";2"),
        (Modifier::UNDERLINED, ";4"),
        (Modifier::REVERSED, ";7"),
    ] {
        if cell.modifier.contains(modifier) {
            codes += code;
        }
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "colours that the view does not use")]
    let colour = match cell.fg {
        Color::Red => ";31",
        Color::Green => ";32",
        Color::Yellow => ";33",
        Color::Blue => ";34",
        Color::Magenta => ";35",
        Color::Cyan => ";36",
        Color::DarkGray => ";90",
        _ => "",
    };
    codes + colour
}

impl Backend for AnsiBackend {
    type Error = Infallible;

    fn draw<'a, I>(&mut self, content: I) -> Result<(), Infallible>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let (mut next, mut style) = (None, String::new());
        for (x, y, cell) in content {
            if next != Some((x, y)) {
                self.add(format_args!("\x1b[{};{}H", y + 1, x + 1));
            }
            let codes = style_codes(cell);
            if codes != style {
                self.add(format_args!("\x1b[{codes}m"));
                style = codes;
            }
            self.bytes += cell.symbol();
            // After a wide character the place is given again, whatever the terminal took it for.
            next = (watch::width(cell.symbol()) == 1).then_some((x + 1, y));
        }
        if !style.is_empty() {
            self.bytes += "\x1b[0m";
        }
        Ok(())
    }

    fn hide_cursor(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn show_cursor(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn get_cursor_position(&mut self) -> Result<Position, Infallible> {
        Ok(Position::ORIGIN)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> Result<(), Infallible> {
        let Position { x, y } = position.into();
        self.add(format_args!("\x1b[{};{}H", y + 1, x + 1));
        Ok(())
    }

    fn clear(&mut self) -> Result<(), Infallible> {
        self.bytes += "\x1b[0m\x1b[2J";
        Ok(())
    }

    fn clear_region(&mut self, clear_type: ClearType) -> Result<(), Infallible> {
        self.bytes += match clear_type {
            ClearType::All => "\x1b[2J",
            ClearType::AfterCursor => "\x1b[J",
            ClearType::BeforeCursor => "\x1b[1J",
            ClearType::CurrentLine => "\x1b[2K",
            ClearType::UntilNewLine => "\x1b[K",
        };
        Ok(())
    }

    fn size(&self) -> Result<Size, Infallible> {
        let (columns, rows) = (self.size)().unwrap_or(UNKNOWN);
        Ok(Size::new(columns, rows))
    }

    fn window_size(&mut self) -> Result<WindowSize, Infallible> {
        Ok(WindowSize { columns_rows: self.size()?, pixels: Size::default() })
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::style::{Color, Modifier, Style};

    use super::AnsiBackend;

    #[test]
    fn only_what_changed_is_written() {
        let mut terminal = Terminal::new(AnsiBackend::new(|| Some((8, 2)))).unwrap();
        let mut frame = |text: &str, style: Style| {
            terminal.draw(|frame| frame.buffer_mut().set_string(1, 1, text, style)).unwrap();
            terminal.backend_mut().take()
        };
        let bold = Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD);
        assert_eq!(frame("ab好c", bold), "\x1b[2;2H\x1b[0;1;36mab好\x1b[2;6Hc\x1b[0m");
        assert_eq!(frame("ab好d", bold), "\x1b[2;6H\x1b[0;1;36md\x1b[0m");
        assert_eq!(frame("ab好d", bold), "");
    }
}
