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
        if self.screen.has_live_line {
            self.screen.has_live_line = false;
            super::progress::write_stderr("\n");
        }
    }
}

/// Metrics of tasks among the metrics of an evaluation, such as `arc_easy/acc 0.4867`, without standard errors and counts.
pub(crate) fn shown_metrics<'a>(metrics: impl Iterator<Item = (&'a str, f64)>) -> Vec<String> {
    let of_tasks = metrics
        .filter_map(|(name, value)| Some((name.strip_prefix(plan::TASK_PREFIX)?, value)))
        .filter(|(name, _)| !name.ends_with("_stderr") && !name.ends_with("/truncated_prompts"));
    of_tasks.map(|(name, value)| format!("{name} {value:.4}")).collect()
}
