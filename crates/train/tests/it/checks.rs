//! Each check fails for the mistake it is made for, names its key, and can be switched off.

use recipe::ChecksSection;
use train::{Checks, Error, FirstLoss, Gradients, ParameterNames};

use super::toy::{Pair, optimizer, param, place, settings};

fn off() -> ChecksSection {
    ChecksSection {
        prompt_ids: true,
        targets: false,
        first_loss: false,
        gradients: false,
        frozen: false,
        dry_save: false,
    }
}

fn checks(on: ChecksSection, model: &Pair, first_loss: FirstLoss) -> Checks {
    Checks::start(on, model, &ParameterNames::of(model), first_loss)
}

fn expect(error: Option<Error>, message: &str, key: &str) {
    let error = error.expect(message);
    assert_eq!(error.to_string(), message);
    assert_eq!(
        error.hint().expect("hint"),
        format!("`{key} = false` in [checks] disables this check")
    );
}

#[test]
fn a_step_without_targets_stops() {
    let on = checks(ChecksSection::default(), &Pair::new(), FirstLoss::Unknown);
    on.targets(1, place(4)).expect("one target");
    let message = "step 4, samples 3, 17, 40: no position has a target";
    expect(on.targets(0, place(4)).err(), message, "targets");
    checks(off(), &Pair::new(), FirstLoss::Unknown).targets(0, place(4)).expect("off");
}

#[test]
fn the_first_loss_must_be_sane() {
    let fresh = FirstLoss::Fresh { vocab_size: 65 };
    let pretrained = FirstLoss::Pretrained { vocab_size: 50_257 };
    let first = |first_loss, loss| {
        checks(ChecksSection::default(), &Pair::new(), first_loss).loss(loss, place(1)).err()
    };
    for loss in [4.17, 4.5, 3.5] {
        assert!(first(fresh, loss).is_none(), "{loss}");
    }
    let message =
        "step 1, samples 3, 17, 40: first loss is `0.5000`, expected between 2.88 and 6.22";
    expect(first(fresh, 0.5), message, "first_loss");
    assert!(first(fresh, 9.0).is_some() && first(fresh, 0.0).is_some());
    assert!(first(pretrained, 2.9).is_none() && first(pretrained, 10.9).is_none());
    assert!(first(pretrained, 0.0).is_some() && first(pretrained, 20.0).is_some());
    assert!(first(FirstLoss::Unknown, 0.0).is_none());
    // Only the first one is judged; one that is not finite stops at any step, switched off or not.
    let mut later = checks(ChecksSection::default(), &Pair::new(), fresh);
    later.loss(4.0, place(1)).expect("sane");
    later.loss(0.5, place(2)).expect("learned");
    for section in [ChecksSection::default(), off()] {
        let mut checks = checks(section, &Pair::new(), FirstLoss::Unknown);
        let error = checks.loss(f64::NAN, place(7)).expect_err("not finite");
        assert!(matches!(error, Error::NonFiniteLoss { .. }));
    }
}

/// Updates with the given gradients of matrix and vector, or with a change by hand; the first error.
fn train_with(
    mut model: Pair,
    on: ChecksSection,
    rates: &[f64],
    gradients: impl Fn(usize) -> ([f32; 6], [f32; 4]),
    after: impl Fn(Pair, usize) -> Pair,
) -> Option<Error> {
    let names = ParameterNames::of(&model);
    let mut optimizer = optimizer(settings(0.0, 1.0), &model);
    let mut checks = checks(on, &model, FirstLoss::Unknown);
    for (idx, lr) in rates.iter().enumerate() {
        let mut sums = Gradients::new(&names);
        let (matrix, vector) = gradients(idx);
        sums.accumulate(&model, || model.linear_loss(&matrix, &vector).backward());
        checks.gradients(&sums);
        let norm = sums.norm(1, place(idx as u64 + 1)).expect("finite");
        model = after(optimizer.step(model, sums, norm, *lr), idx);
        if let Err(error) = checks.updated(&model, *lr, place(idx as u64 + 1)) {
            return Some(error);
        }
    }
    None
}

const ONES: ([f32; 6], [f32; 4]) = ([1.0; 6], [1.0; 4]);
const DEAD_VECTOR: ([f32; 6], [f32; 4]) = ([1.0; 6], [0.0; 4]);
const RATES: [f64; 5] = [0.0, 1e-3, 1e-3, 1e-3, 1e-3];

#[test]
fn a_parameter_without_a_gradient_stops_the_third_update() {
    let all = ChecksSection::default();
    assert!(train_with(Pair::new(), all, &RATES, |_| ONES, |m, _| m).is_none());
    // The rate of step 1 is 0, so steps 2, 3, 4 are updates 1, 2, 3.
    let message = "step 4, samples 3, 17, 40: trainable parameter has had no gradient: `vector`";
    expect(train_with(Pair::new(), all, &RATES, |_| DEAD_VECTOR, |m, _| m), message, "gradients");
    // Behind a zero the gradient comes one update later.
    let late = |idx| if idx < 2 { DEAD_VECTOR } else { ONES };
    assert!(train_with(Pair::new(), all, &RATES, late, |m, _| m).is_none());
    assert!(train_with(Pair::new(), off(), &RATES, |_| DEAD_VECTOR, |m, _| m).is_none());
}

#[test]
fn a_parameter_that_does_not_move_stops_the_third_update() {
    let all = ChecksSection::default();
    let start = Pair::new();
    let stuck = |model: Pair, _| Pair { vector: Pair::new().vector, ..model };
    let message = "step 4, samples 3, 17, 40: trainable parameter has not changed: `vector`";
    expect(train_with(start, all, &RATES, |_| ONES, stuck), message, "gradients");
    // Gains of 1 cannot move by 1e-9: that is the warm-up's doing.
    let gains = Pair { vector: param(vec![1.0; 4], [4]), ..Pair::new() };
    let tiny = [1e-9; 5];
    assert!(train_with(gains, all, &tiny, |_| ONES, |m, _| m).is_none());
}

#[test]
fn a_frozen_parameter_that_moves_stops_at_once() {
    let all = ChecksSection::default();
    let frozen = || {
        let model = Pair::new();
        Pair { matrix: model.matrix.set_require_grad(false), ..model }
    };
    assert!(train_with(frozen(), all, &RATES, |_| ONES, |m, _| m).is_none());
    let moved = |model: Pair, _| {
        let matrix = param(vec![0.0; 6], [2, 3]).set_require_grad(false);
        Pair { matrix, ..model }
    };
    let message = "step 3, samples 3, 17, 40: frozen parameter has changed: `matrix`";
    expect(train_with(frozen(), all, &RATES, |_| ONES, moved), message, "frozen");
}
