//! How long the updates of a stage take, for the time that is left.

/// The first update that a process made in a stage. What comes before it, such as a first evaluation or what a teacher computes in
/// advance, does not tell how long an update takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    first: Option<(u64, f64)>,
}

impl Pace {
    /// Notes that an update was made at a time in seconds since any moment.
    pub fn note(&mut self, step: u64, now: f64) {
        self.first.get_or_insert((step, now));
    }

    /// Estimated seconds until the last update, now that `step` updates are made; `None` before the second one, or if the
    /// number of updates is unknown (0).
    pub fn left(&self, step: u64, max_steps: u64, now: f64) -> Option<f64> {
        let (first, start) = self.first?;
        let done = step.saturating_sub(first);
        if done == 0 || max_steps == 0 {
            return None;
        }
        Some((now - start).max(0.0) / done as f64 * max_steps.saturating_sub(step) as f64)
    }
}
