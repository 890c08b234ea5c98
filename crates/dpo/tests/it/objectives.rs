//! The named losses as the stage calls them: first values, lengths, what is reported.

use burn::tensor::{Device, Tensor};
use dpo::{Objective, PreferenceMetrics};
use loss::{DpoLoss, PairLogprobs, SequenceLogprobs};
use recipe::PreferenceLoss;
use train::FirstLoss;

use crate::support::Place;

/// One pair whose answers have 2 and 3 tokens.
fn pair(chosen: [f32; 3], rejected: [f32; 3]) -> PairLogprobs {
    let device = Device::flex();
    let side = |logprobs: [f32; 3], mask: [f32; 3]| {
        SequenceLogprobs::from_tokens(
            Tensor::<2>::from_data([logprobs], &device),
            Tensor::<2>::from_data([mask], &device),
        )
    };
    // Tokens outside the mask count in no sum and no length.
    PairLogprobs { chosen: side(chosen, [1.0, 1.0, 0.0]), rejected: side(rejected, [1.0; 3]) }
}

fn policy() -> PairLogprobs {
    pair([-0.5, -1.5, 77.0], [-1.0, -2.0, -3.0])
}

fn loss_of(objective: Objective, policy: &PairLogprobs, reference: &PairLogprobs) -> f64 {
    f64::from(objective.losses(policy, reference).into_scalar::<f32>())
}

fn sigmoid(beta: f64) -> Objective {
    Objective::Dpo { loss: DpoLoss::Sigmoid { label_smoothing: 0.0 }, beta }
}

#[test]
fn a_policy_that_is_its_reference_has_the_loss_that_the_check_expects() {
    let smoothed = DpoLoss::Sigmoid { label_smoothing: 0.1 };
    for objective in [
        sigmoid(0.1),
        Objective::Dpo { loss: smoothed, beta: 0.3 },
        Objective::Dpo { loss: DpoLoss::Hinge, beta: 0.1 },
        Objective::Dpo { loss: DpoLoss::Ipo, beta: 0.1 },
    ] {
        assert!(objective.has_reference());
        let FirstLoss::Near { loss } = objective.first_loss() else { panic!("{objective:?}") };
        let found = loss_of(objective, &policy(), &policy());
        assert!((found - loss).abs() < 1e-6 * loss.max(1.0), "{objective:?}: {found}, not {loss}");
    }
    let FirstLoss::Near { loss } = sigmoid(0.1).first_loss() else { panic!() };
    assert!((loss - 2.0_f64.ln()).abs() < 1e-12);
}

/// PaddleFormers#4908: the sum left the end token out and the length did not.
#[test]
fn sums_and_lengths_come_from_one_mask() {
    // Means: −1 and −2; sums: −2 and −6.
    let reference = pair([-1.0, -2.0, -9.0], [-1.0, -1.0, -1.0]);
    let log_sigmoid = |z: f64| -(-z).exp().ln_1p();
    let ipo = Objective::Dpo { loss: DpoLoss::Ipo, beta: 0.1 };
    // ((−1 + 1.5) − (−2 + 1)) − 5
    assert!((loss_of(ipo, &policy(), &reference) - 3.5_f64.powi(2)).abs() < 1e-5);
    // 0.1 × ((−2 + 3) − (−6 + 3))
    let wanted = -log_sigmoid(0.4);
    assert!((loss_of(sigmoid(0.1), &policy(), &reference) - wanted).abs() < 1e-6);
    let simpo = Objective::SimPo { beta: 2.0, gamma: 0.5 };
    let wanted = -log_sigmoid(2.0 * (-1.0 + 2.0) - 0.5);
    assert!((loss_of(simpo, &policy(), &reference) - wanted).abs() < 1e-6);
    let odds = |mean: f64| mean - (-mean.exp()).ln_1p();
    let orpo = Objective::Orpo { lambda: 0.1 };
    // The chosen answer's own loss, a token, and λ times the odds term.
    let wanted = 1.0 - 0.1 * log_sigmoid(odds(-1.0) - odds(-2.0));
    assert!((loss_of(orpo, &policy(), &reference) - wanted).abs() < 1e-6);
}

#[test]
fn metrics_have_the_names_of_trl_and_read_what_the_loss_reads() {
    let reference = pair([-1.0, -2.0, -9.0], [-1.0, -1.0, -1.0]);
    let mut metrics = PreferenceMetrics::default();
    metrics.add(sigmoid(0.1), &policy(), &reference);
    // A pair without a choice is not right.
    metrics.add(sigmoid(0.1), &policy(), &policy());
    let found = metrics.of_step();
    let wanted = [
        ("rewards/chosen", 0.05),
        ("rewards/rejected", -0.15),
        ("rewards/accuracies", 0.5),
        ("rewards/margins", 0.2),
        ("logps/chosen", -2.0),
        ("logps/rejected", -6.0),
    ];
    assert_eq!(found.len(), wanted.len());
    for (name, value) in wanted {
        assert!((found[name] - value).abs() < 1e-6, "{name}: {}, not {value}", found[name]);
    }
    // SimPO and ORPO have no reference and read means.
    let unused = pair([0.0; 3], [0.0; 3]);
    let mut metrics = PreferenceMetrics::default();
    metrics.add(Objective::SimPo { beta: 2.0, gamma: 0.5 }, &policy(), &unused);
    let found = metrics.of_step();
    assert!(
        (found["rewards/margins"] - 2.0).abs() < 1e-6 && (found["logps/chosen"] + 1.0).abs() < 1e-6
    );
}

#[test]
fn each_name_of_the_recipe_is_its_loss() {
    let place = Place::new();
    let objective = |set: &[(&str, &str)]| {
        Objective::of(place.plan("names", set).recipe.dpo.as_ref().expect("a section"))
    };
    assert_eq!(objective(&[]), sigmoid(0.1));
    assert_eq!(objective(&[]), Objective::default());
    assert_eq!(
        objective(&[("dpo.label_smoothing", "0.2"), ("dpo.beta", "0.5")]),
        Objective::Dpo { loss: DpoLoss::Sigmoid { label_smoothing: 0.2 }, beta: 0.5 }
    );
    let hinge = Objective::Dpo { loss: DpoLoss::Hinge, beta: 0.1 };
    assert_eq!(objective(&[("dpo.loss", "hinge")]), hinge);
    let ipo = Objective::Dpo { loss: DpoLoss::Ipo, beta: 0.1 };
    assert_eq!(objective(&[("dpo.loss", "ipo")]), ipo);
    assert_eq!(objective(&[("dpo.loss", "simpo")]), Objective::SimPo { beta: 2.0, gamma: 0.5 });
    assert_eq!(objective(&[("dpo.loss", "orpo")]), Objective::Orpo { lambda: 0.1 });
    for loss in [PreferenceLoss::SimPo, PreferenceLoss::Orpo] {
        assert!(!loss.has_reference());
        assert!(!objective(&[("dpo.loss", loss.name())]).has_reference());
    }
}
