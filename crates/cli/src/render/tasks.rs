//! Progress of tasks: a live line on a terminal, nothing on a pipe.

use super::progress::{Screen, Style};
use super::table::thousands;
use crate::args::LogStyle;

/// Progress of one task.
pub(crate) struct TaskProgress {
    screen: Screen,
    name: String,
}

impl TaskProgress {
    pub(crate) fn new(name: String) -> Self {
        Self { screen: Screen::new(LogStyle::Auto), name }
    }

    /// Shows the number of answered requests.
    pub(crate) fn update(&mut self, n_done: usize, n_all: usize) {
        if self.screen.style == Style::Live {
            let (done, all) = (thousands(n_done as u64), thousands(n_all as u64));
            self.screen.live(&format!("{}: {done} of {all} requests", self.name), n_done == n_all);
        }
    }

    /// Leaves the last state on the screen.
    pub(crate) fn finish(&mut self) {
        if self.screen.keep_live() {
            super::progress::write_stderr("\n");
        }
    }
}
