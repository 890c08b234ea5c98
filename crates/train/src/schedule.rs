//! Learning rate schedules: warm-up, then cosine, linear, constant or warm-up–stable–decay.
//!
//! The rate is a pure function of the step, so a resumed run needs no schedule state.

use std::f64::consts::PI;

use recipe::{Schedule, ScheduleKind};

/// The learning rate of the update after `step` updates; `peak` is the optimizer's `lr`.
///
/// Warm-up is linear from 0 at step 0. Cosine and linear decay follow transformers' `get_cosine_schedule_with_warmup` and
/// `get_linear_schedule_with_warmup`, down to `min_lr`.
pub fn lr(schedule: &Schedule, peak: f64, step: u64, max_steps: u64) -> f64 {
    let warmup_steps = schedule.warmup_steps;
    if step < warmup_steps {
        return peak * step as f64 / warmup_steps as f64;
    }
    let total_steps = schedule.total_steps.unwrap_or(max_steps);
    let fall = peak - schedule.min_lr;
    match schedule.kind {
        ScheduleKind::Constant => peak,
        ScheduleKind::Cosine => {
            let progress = share(step, warmup_steps, total_steps);
            schedule.min_lr + fall * 0.5 * (1.0 + (PI * progress).cos())
        }
        ScheduleKind::Linear => peak - fall * share(step, warmup_steps, total_steps),
        ScheduleKind::Wsd => {
            let decay_steps = schedule.decay_steps.unwrap_or(0);
            let start = total_steps.saturating_sub(decay_steps).max(warmup_steps);
            peak - fall * share(step, start, total_steps)
        }
    }
}

/// The fraction of the way from `start` to `end` at `step`, in 0..=1.
fn share(step: u64, start: u64, end: u64) -> f64 {
    if step <= start {
        return 0.0;
    }
    let length = end.saturating_sub(start).max(1);
    ((step - start) as f64 / length as f64).min(1.0)
}
