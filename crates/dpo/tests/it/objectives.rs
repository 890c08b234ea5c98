//! The named losses as the stage calls them: first values, lengths, what is reported.

use burn::tensor::{Device, Tensor};
use dpo::{Objective, PolicyLogprobs, PreferenceMetrics};
use loss::{PairLogprobs, PairLoss, PairObjective, SequenceLogprobs};
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

fn loss_of(objective: &Objective, policy: &PairLogprobs, reference: &PairLogprobs) -> f64 {
    let policy = PolicyLogprobs { pairs: policy.clone(), weights_p: None };
    f64::from(objective.losses(&policy, reference, 2.0).into_scalar::<f32>())
}

fn one(loss: PairLoss, beta: f64) -> Objective {
    PairObjective::one(loss, beta).into()
}

fn sigmoid(beta: f64) -> Objective {
    one(PairLoss::Sigmoid { label_smoothing: 0.0 }, beta)
}

#[test]
fn a_policy_that_is_its_reference_has_the_loss_that_the_check_expects() {
    let label_smoothing = 0.1;
    let mut objectives = vec![one(PairLoss::Sigmoid { label_smoothing }, 0.3)];
    objectives.extend(
        [
            PairLoss::Sigmoid { label_smoothing: 0.0 },
            PairLoss::SigmoidNorm,
            PairLoss::Hinge,
            PairLoss::Ipo,
            PairLoss::ExoPair { label_smoothing },
            PairLoss::Robust { label_smoothing },
            PairLoss::DiscoPop { tau: 0.05 },
            PairLoss::NcaPair,
            PairLoss::BcoPair,
            PairLoss::SppoHard,
            PairLoss::ApoZero,
            PairLoss::ApoDown,
            PairLoss::Aot { label_smoothing },
            PairLoss::AotUnpaired { label_smoothing },
        ]
        .map(|loss| one(loss, 0.1)),
    );
    for objective in objectives {
        assert!(objective.has_reference());
        let FirstLoss::Near { loss } = objective.first_loss() else { panic!("{objective:?}") };
        let found = loss_of(&objective, &policy(), &policy());
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
    let ipo = one(PairLoss::Ipo, 0.1);
    // ((−1 + 1.5) − (−2 + 1)) − 5
    assert!((loss_of(&ipo, &policy(), &reference) - 3.5_f64.powi(2)).abs() < 1e-5);
    // 0.1 × ((−2 + 3) − (−6 + 3))
    let wanted = -log_sigmoid(0.4);
    assert!((loss_of(&sigmoid(0.1), &policy(), &reference) - wanted).abs() < 1e-6);
    let simpo = one(PairLoss::SimPo { gamma: 0.5 }, 2.0);
    let wanted = -log_sigmoid(2.0 * (-1.0 + 2.0) - 0.5);
    assert!((loss_of(&simpo, &policy(), &reference) - wanted).abs() < 1e-6);
    let odds = |mean: f64| mean - (-mean.exp()).ln_1p();
    let orpo = one(PairLoss::Orpo, 0.1);
    // The chosen answer's own loss, a token, and λ times the odds term.
    let wanted = 1.0 - 0.1 * log_sigmoid(odds(-1.0) - odds(-2.0));
    assert!((loss_of(&orpo, &policy(), &reference) - wanted).abs() < 1e-6);
}

#[test]
fn metrics_have_the_names_of_trl_and_read_what_the_loss_reads() {
    let reference = pair([-1.0, -2.0, -9.0], [-1.0, -1.0, -1.0]);
    let mut metrics = PreferenceMetrics::default();
    metrics.add(&sigmoid(0.1), &policy(), &reference);
    // A pair without a choice is not right.
    metrics.add(&sigmoid(0.1), &policy(), &policy());
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
    metrics.add(&one(PairLoss::SimPo { gamma: 0.5 }, 2.0), &policy(), &unused);
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
        one(PairLoss::Sigmoid { label_smoothing: 0.2 }, 0.5)
    );
    let hinge = one(PairLoss::Hinge, 0.1);
    assert_eq!(objective(&[("dpo.loss", "hinge")]), hinge);
    let ipo = one(PairLoss::Ipo, 0.1);
    assert_eq!(objective(&[("dpo.loss", "ipo")]), ipo);
    assert_eq!(objective(&[("dpo.loss", "simpo")]), one(PairLoss::SimPo { gamma: 0.5 }, 2.0));
    assert_eq!(objective(&[("dpo.loss", "orpo")]), one(PairLoss::Orpo, 0.1));
    for loss in
        [PreferenceLoss::Sft, PreferenceLoss::Cpo, PreferenceLoss::SimPo, PreferenceLoss::Orpo]
    {
        assert!(!loss.has_reference());
        assert!(!objective(&[("dpo.loss", loss.name())]).has_reference());
    }
    let cpo = PairLoss::Cpo { label_smoothing: 0.0, alpha: 0.5 };
    assert_eq!(objective(&[("dpo.loss", "cpo"), ("dpo.cpo_alpha", "0.5")]), one(cpo, 0.1));
    for loss in PreferenceLoss::ALL {
        let smoothing = ("dpo.label_smoothing", "0.1");
        let is_exo = loss == PreferenceLoss::ExoPair;
        let set: Vec<(&str, &str)> =
            [("dpo.loss", loss.name())].into_iter().chain(is_exo.then_some(smoothing)).collect();
        assert_eq!(objective(&set).has_reference(), loss.has_reference(), "{}", loss.name());
    }
    let sum = objective(&[
        ("dpo.loss", "[\"sigmoid\", \"bco_pair\", \"sft\"]"),
        ("dpo.loss_weights", "[0.8, 0.2, 1.0]"),
    ]);
    let terms = [(PairLoss::Sigmoid { label_smoothing: 0.0 }, 0.8), (PairLoss::BcoPair, 0.2)];
    assert_eq!(sum.pairs().terms, [&terms[..], &[(PairLoss::Sft, 1.0)]].concat());
    assert!(sum.has_reference());
    assert!(matches!(sum.first_loss(), FirstLoss::Unknown));
}

/// Settings that change what is summed: the reference must be summed alike, so that the first loss is known.
#[test]
fn every_setting_trains_and_starts_at_its_first_loss() {
    let place = Place::new();
    place.run("start", &[("dpo.max_steps", "1")], None);
    place.start_with_lora("start");
    let runs: [(&str, &[(&str, &str)], Option<f64>); 6] = [
        ("ld", &[("dpo.ld_alpha", "0.3")], Some(2.0_f64.ln())),
        ("wpo", &[("dpo.use_weighting", "true")], None),
        ("aot", &[("dpo.loss", "aot")], Some(2.0_f64.ln())),
        ("js", &[("dpo.f_divergence", "js_divergence")], Some(2.0_f64.ln())),
        ("sum", &[("dpo.loss", "[\"hinge\", \"sft\"]")], None),
        ("cpo", &[("dpo.loss", "cpo")], None),
    ];
    for (name, set, first) in runs {
        let limits = [("dpo.max_steps", "2"), ("dpo.lora.dropout", "0.0")];
        place.run(name, &[set, &limits].concat(), None);
        let rows = place.metrics(name);
        let losses: Vec<f64> = rows.iter().filter_map(|row| row["loss"].as_f64()).collect();
        assert_eq!(losses.len(), 2, "{name}");
        assert!(losses.iter().all(|loss| loss.is_finite()), "{name}: {losses:?}");
        if let Some(first) = first {
            assert!((losses[0] - first).abs() < 1e-5, "{name}: {losses:?}");
        }
    }
}
