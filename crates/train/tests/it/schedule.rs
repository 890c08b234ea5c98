//! First and last rates of each shape, and those of transformers.

use recipe::{Schedule, ScheduleKind};
use train::lr;

fn schedule(kind: ScheduleKind, warmup_steps: u64, min_lr: f64) -> Schedule {
    Schedule { kind, warmup_steps, min_lr, decay_steps: None, total_steps: None }
}

fn close(got: f64, want: f64) {
    assert!((got - want).abs() <= 1e-15 + 1e-12 * want.abs(), "{got} is not {want}");
}

#[test]
fn warm_up_starts_at_0_and_ends_at_the_peak() {
    for kind in [ScheduleKind::Cosine, ScheduleKind::Linear, ScheduleKind::Constant] {
        let schedule = schedule(kind, 4, 0.0);
        for (step, share) in [0.0, 0.25, 0.5, 0.75, 1.0].into_iter().enumerate() {
            close(lr(&schedule, 3e-3, step as u64, 20), 3e-3 * share);
        }
    }
    let cold = schedule(ScheduleKind::Cosine, 0, 0.0);
    close(lr(&cold, 3e-3, 0, 20), 3e-3);
}

/// The recipe of nanoGPT's character model: 100 steps of warm-up, cosine from 1e-3 to 1e-4 at 5,000.
#[test]
fn cosine_ends_at_its_minimum() {
    let schedule = schedule(ScheduleKind::Cosine, 100, 1e-4);
    let rate = |step| lr(&schedule, 1e-3, step, 5000);
    close(rate(100), 1e-3);
    close(rate(2550), 5.5e-4);
    close(rate(5000), 1e-4);
    close(rate(9000), 1e-4);
    assert!((100..4999).all(|step| rate(step) > rate(step + 1)));
}

#[test]
fn linear_constant_and_wsd() {
    let linear = schedule(ScheduleKind::Linear, 10, 1e-4);
    close(lr(&linear, 1e-3, 60, 110), 5.5e-4);
    close(lr(&linear, 1e-3, 110, 110), 1e-4);
    let constant = schedule(ScheduleKind::Constant, 10, 0.0);
    close(lr(&constant, 1e-3, 1_000_000, 110), 1e-3);
    let wsd = Schedule { decay_steps: Some(20), ..schedule(ScheduleKind::Wsd, 10, 0.0) };
    close(lr(&wsd, 1e-3, 5, 100), 5e-4);
    close(lr(&wsd, 1e-3, 80, 100), 1e-3);
    close(lr(&wsd, 1e-3, 90, 100), 5e-4);
    close(lr(&wsd, 1e-3, 100, 100), 0.0);
    // A decay that would begin in the warm-up begins after it.
    let long = Schedule { decay_steps: Some(1000), ..schedule(ScheduleKind::Wsd, 10, 0.0) };
    close(lr(&long, 1e-3, 55, 100), 5e-4);
}

#[test]
fn a_fixed_length_is_independent_of_the_stage() {
    let fixed = Schedule { total_steps: Some(200), ..schedule(ScheduleKind::Cosine, 10, 1e-5) };
    for step in 0..100 {
        close(lr(&fixed, 1e-3, step, 100), lr(&fixed, 1e-3, step, 5000));
    }
    close(lr(&fixed, 1e-3, 105, 100), 1e-5 + 0.5 * (1e-3 - 1e-5));
}
