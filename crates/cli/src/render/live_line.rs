//! A line at the end of a terminal's output that is drawn again and again.

use std::time::{Duration, Instant};

use watch::{cut, printable, width};

use super::stderr::{self, Importance};
use super::view::tty;

/// Least time between two drawings.
const REDRAW: Duration = Duration::from_millis(100);
/// Columns of a terminal that does not say.
const UNKNOWN_COLUMNS: usize = 100;

/// The line.
#[derive(Debug, Default)]
pub(crate) struct LiveLine {
    /// Columns of what is on the terminal.
    shown: Option<usize>,
    drawn: Option<Instant>,
}

impl LiveLine {
    /// Columns that a line may take: one less than the terminal has, so that it never wraps.
    pub(crate) fn columns() -> usize {
        terminal_columns().saturating_sub(1)
    }

    /// Whether it is time to draw the line again.
    pub(crate) fn is_due(&self) -> bool {
        self.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW)
    }

    /// Draws the line in place of the one before.
    pub(crate) fn draw(&mut self, text: &str) {
        let clear = self.clear();
        let text = printable(text);
        let text = cut(&text, Self::columns());
        stderr::write(&format!("{clear}{text}"), Importance::Progress);
        (self.shown, self.drawn) = (Some(width(text)), Some(Instant::now()));
    }

    /// Prints a line that stays, in place of the live one.
    pub(crate) fn permanent(&mut self, text: &str, importance: Importance) {
        let clear = self.clear();
        self.shown = None;
        stderr::write(&format!("{clear}{}\n", printable(text)), importance);
    }

    /// Removes the line.
    pub(crate) fn remove(&mut self) {
        let clear = self.clear();
        self.shown = None;
        if !clear.is_empty() {
            stderr::write(&clear, Importance::Once);
        }
    }

    /// Leaves the line where it is. Returns whether there is one.
    pub(crate) fn keep(&mut self) -> bool {
        self.shown.take().is_some()
    }

    /// Control characters that remove the line on the terminal; none if there is no line.
    fn clear(&self) -> String {
        let Some(shown) = self.shown else { return String::new() };
        clear_of(shown, terminal_columns(), tty::rewraps())
    }
}

fn terminal_columns() -> usize {
    tty::size().map_or(UNKNOWN_COLUMNS, |(columns, _)| columns.into())
}

/// Control characters that remove a line of `shown` columns from a terminal that has `columns` now. On one that has become narrower and wraps
/// again, the line takes several rows.
fn clear_of(shown: usize, columns: usize, rewraps: bool) -> String {
    let n_rows = if rewraps { shown.div_ceil(columns.max(1)).max(1) } else { 1 };
    format!("\r\x1b[2K{}", "\x1b[1A\x1b[2K".repeat(n_rows - 1))
}

#[cfg(test)]
mod tests {
    use super::clear_of;

    #[test]
    fn a_line_that_was_wrapped_again_is_removed_whole() {
        assert_eq!(clear_of(79, 80, true), "\r\x1b[2K");
        assert_eq!(clear_of(79, 79, true), "\r\x1b[2K");
        assert_eq!(clear_of(79, 40, true), "\r\x1b[2K\x1b[1A\x1b[2K");
        assert_eq!(clear_of(79, 40, false), "\r\x1b[2K");
        assert_eq!(clear_of(0, 0, true), "\r\x1b[2K");
    }
}
