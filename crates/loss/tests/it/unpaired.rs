//! Losses on labelled answers against plain loops in f64. `temper verify` compares them with the reference's vectors.

use burn::tensor::{Device, Tensor};
use loss::{LossSum, UnpairedLoss, UnpairedObjective, mismatched_kl};
use testkit::{Tolerance, assert_close, values};

use super::support::sigmoid;

const POLICY: [f32; 4] = [-20.0, -11.5, -30.25, -7.0];
const REFERENCE: [f32; 4] = [-22.0, -10.0, -30.0, -12.5];
const LABELS: [bool; 4] = [true, false, true, false];

fn objective(loss: UnpairedLoss) -> UnpairedObjective {
    UnpairedObjective { loss, beta: 0.3, desirable_weight: 0.5, undesirable_weight: 1.75 }
}

fn losses(objective: UnpairedObjective, policy: [f32; 4], kl: f64) -> Vec<f32> {
    let device = Device::flex();
    let of = |values: [f32; 4]| Tensor::<1>::from_data(values, &device);
    let rewards = objective.rewards(of(policy), of(REFERENCE));
    values(&objective.losses(rewards, &LABELS, kl))
}

#[test]
fn each_answer_has_the_loss_of_its_label() {
    let by_hand = |kl: f64| -> Vec<f32> {
        let ratios = POLICY.iter().zip(REFERENCE).map(|(p, r)| f64::from(p - r));
        let loss = |(ratio, label): (f64, &bool)| match label {
            true => 0.5 * (1.0 - sigmoid(0.3 * (ratio - kl))),
            false => 1.75 * (1.0 - sigmoid(0.3 * (kl - ratio))),
        };
        ratios.zip(&LABELS).map(|row| loss(row) as f32).collect()
    };
    let close = Tolerance::absolute(1e-6);
    for kl in [0.0, 0.8, 12.0] {
        let kto = losses(objective(UnpairedLoss::Kto), POLICY, kl);
        assert_close("kto", &kto, &by_hand(kl), close);
        // APO-zero ignores the divergence.
        let apo = losses(objective(UnpairedLoss::ApoZeroUnpaired), POLICY, kl);
        assert_close("apo_zero_unpaired", &apo, &by_hand(0.0), close);
    }
}

#[test]
fn a_policy_equal_to_its_reference_has_the_expected_loss() {
    for loss in [UnpairedLoss::Kto, UnpairedLoss::ApoZeroUnpaired] {
        let found = losses(objective(loss), REFERENCE, 0.0);
        let mean = f64::from(found.iter().sum::<f32>()) / 4.0;
        assert!((mean - objective(loss).at_reference(&LABELS)).abs() < 1e-7);
    }
    assert_eq!(objective(UnpairedLoss::Kto).at_reference(&[true, false]), 0.5 * (0.5 + 1.75) / 2.0);
    assert_eq!(objective(UnpairedLoss::Kto).at_reference(&[]), 0.0);
}

/// Ratios of hundreds of nats saturate the loss and its gradient; they are never NaN.
#[test]
fn extreme_ratios_are_finite() {
    let device = Device::flex().autodiff();
    let leaf = Tensor::<1>::from_data([-9e3_f32, 9e3, 9e3, -9e3], &device).require_grad();
    let reference = Tensor::<1>::zeros([4], &device);
    let objective = objective(UnpairedLoss::Kto);
    let terms = objective.losses(objective.rewards(leaf.clone(), reference), &LABELS, 3.0);
    assert_eq!(values(&terms), [0.5, 1.75, 0.0, 0.0]);
    let gradient = leaf.grad(&LossSum::of(terms).sum.backward()).expect("a gradient");
    assert_eq!(values(&gradient), [0.0; 4]);
}

#[test]
fn the_divergence_is_a_mean_that_is_never_negative() {
    assert_eq!(mismatched_kl(3.0, 4), 0.75);
    assert_eq!(mismatched_kl(-3.0, 4), 0.0);
    assert_eq!(mismatched_kl(0.0, 0), 0.0);
}
