//! Abilities of a terminal, and the styles of the view.

use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::border;
use ratatui::text::Line;
use ratatui::widgets::Block;

use crate::status::RunState;

/// The border where a terminal has no more than ASCII.
const BORDER_OF_ASCII: border::Set<'_> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// Abilities of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether it shows colours, and the user wants them.
    pub colour: bool,
    /// Whether it shows more than ASCII.
    pub unicode: bool,
}

impl Look {
    pub(crate) fn with(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    pub(crate) fn dim(self) -> Style {
        self.with(Color::DarkGray)
    }

    pub(crate) fn prompt(self) -> Style {
        self.with(Color::Cyan)
    }

    pub(crate) fn warning(self) -> Style {
        self.with(Color::Yellow)
    }

    pub(crate) fn of_state(self, state: RunState) -> Style {
        match state {
            RunState::Training | RunState::Finished => self.with(Color::Green),
            RunState::Stopping | RunState::Stopped => self.with(Color::Yellow),
            RunState::Failed => self.with(Color::Red),
            RunState::Unknown => Style::new(),
        }
    }

    pub(crate) fn block(self, title: Line<'static>) -> Block<'static> {
        let set = if self.unicode { border::ROUNDED } else { BORDER_OF_ASCII };
        Block::bordered().border_set(set).border_style(self.dim()).title(title)
    }
}

/// The style of titles.
pub(crate) fn title() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}
