//! DPO and related losses against the reference's vectors and plain loops, and with extreme values at masked-out places.

use burn::tensor::{Device, Tensor, TensorData};
use loss::{
    FDivergence, LossSum, PairContext, PairLogprobs, PairLoss, PairObjective, SequenceLogprobs,
    answer_weights, dpo_rewards, orpo_odds_ratio, simpo,
};
use testkit::{Golden, Tolerance, assert_close, golden_dir, values};

use super::support::{sigmoid, softplus_of_minus};

const CLOSE: Tolerance = Tolerance::absolute(1e-6);

fn golden() -> Golden {
    Golden::open(&golden_dir("preference.safetensors"))
}

const SIGMOID: PairLoss = PairLoss::Sigmoid { label_smoothing: 0.0 };

/// The loss of each pair.
fn dpo(policy: &PairLogprobs, reference: &PairLogprobs, loss: PairLoss, beta: f64) -> Tensor<1> {
    let context = PairContext { mean_chosen_tokens: 2.5, weights_p: None };
    PairObjective::one(loss, beta).losses(policy, reference, &context)
}

fn matrix(values: &[f32], rows: usize, device: &Device) -> Tensor<2> {
    let t = values.len() / rows;
    Tensor::from_data(TensorData::new(values.to_vec(), [rows, t]), device)
}

fn pair_of(file: &Golden, model: &str) -> PairLogprobs {
    let side = |side: &str| {
        let logprobs = file.f32(&format!("{model}_{side}_logprobs"));
        let mask = file.f32(&format!("{side}_mask"));
        let device = Device::flex();
        SequenceLogprobs::from_tokens(matrix(&logprobs, 4, &device), matrix(&mask, 4, &device))
    };
    PairLogprobs { chosen: side("chosen"), rejected: side("rejected") }
}

#[test]
fn losses_equal_the_references() {
    let file = golden();
    let (policy, reference) = (pair_of(&file, "policy"), pair_of(&file, "ref"));
    let losses = [
        ("dpo_sigmoid", dpo(&policy, &reference, SIGMOID, 0.1)),
        ("dpo_hinge", dpo(&policy, &reference, PairLoss::Hinge, 0.1)),
        ("dpo_ipo", dpo(&policy, &reference, PairLoss::Ipo, 0.1)),
        (
            "dpo_label_smoothing_0_1",
            dpo(&policy, &reference, PairLoss::Sigmoid { label_smoothing: 0.1 }, 0.1),
        ),
        ("simpo_beta2_gamma1", simpo(&policy, 2.0, 1.0)),
        ("orpo_odds_ratio_term", orpo_odds_ratio(&policy)),
    ];
    for (name, got) in losses {
        // IPO reaches 19, where f32 has a resolution of 2e-6, and divides sums by lengths in the order of TRL 1.12.
        let close = Tolerance { of_largest: 5e-7, ..CLOSE };
        assert_close(name, &values(&got), &file.f32(name), close);
    }
}

/// Two pairs: the chosen answers have 2 and 3 tokens, the rejected ones 3 and 1.
const CHOSEN: [[f32; 3]; 2] = [[-0.5, -1.5, 7.0], [-0.25, -2.0, -0.75]];
const REJECTED: [[f32; 3]; 2] = [[-1.0, -0.5, -3.0], [-4.0, 9.0, 9.0]];
const CHOSEN_MASK: [f32; 6] = [1.0, 1.0, 0.0, 1.0, 1.0, 1.0];
const REJECTED_MASK: [f32; 6] = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0];

fn by_hand(outside: f32) -> PairLogprobs {
    let device = Device::flex();
    let side = |rows: [[f32; 3]; 2], mask: [f32; 6]| {
        let flat = rows.iter().flatten().zip(mask);
        let flat: Vec<f32> = flat.map(|(x, m)| if m == 0.0 { outside } else { *x }).collect();
        SequenceLogprobs::from_tokens(matrix(&flat, 2, &device), matrix(&mask, 2, &device))
    };
    PairLogprobs { chosen: side(CHOSEN, CHOSEN_MASK), rejected: side(REJECTED, REJECTED_MASK) }
}

#[test]
fn sums_and_means_come_from_one_mask() {
    let pairs = by_hand(0.0);
    assert_eq!(values(&pairs.chosen.sums()), [-2.0, -3.0]);
    assert_eq!(values(&pairs.chosen.means()), [-1.0, -1.0]);
    assert_eq!(values(&pairs.rejected.sums()), [-4.5, -4.0]);
    assert_eq!(values(&pairs.rejected.means()), [-1.5, -4.0]);
    let simpo_by_hand = [2.0 * 0.5 - 0.5, 2.0 * 3.0 - 0.5].map(|x| softplus_of_minus(x) as f32);
    assert_close("simpo", &values(&simpo(&pairs, 2.0, 0.5)), &simpo_by_hand, CLOSE);
}

#[test]
fn masked_out_values_change_nothing() {
    let plain = by_hand(0.0);
    for hostile in [1e9, f32::NEG_INFINITY, f32::NAN] {
        let other = by_hand(hostile);
        for loss in [PairLoss::Sigmoid { label_smoothing: 0.2 }, PairLoss::Hinge, PairLoss::Ipo] {
            assert_eq!(
                values(&dpo(&other, &plain, loss, 0.3)),
                values(&dpo(&plain, &plain, loss, 0.3))
            );
        }
        assert_eq!(values(&orpo_odds_ratio(&other)), values(&orpo_odds_ratio(&plain)));
    }
}

#[test]
fn a_policy_equal_to_its_reference_has_a_gradient() {
    let device = Device::flex().autodiff();
    let flat: Vec<f32> = CHOSEN.iter().flatten().copied().collect();
    let leaf = matrix(&flat, 2, &device).set_require_grad(true);
    let plain = matrix(&flat, 2, &device);
    let side = |logprobs: &Tensor<2>| {
        SequenceLogprobs::from_tokens(logprobs.clone(), matrix(&CHOSEN_MASK, 2, &device))
    };
    let policy = PairLogprobs { chosen: side(&leaf), rejected: side(&plain) };
    let reference = PairLogprobs { chosen: side(&plain), rejected: side(&plain) };
    let loss = LossSum::of(dpo(&policy, &reference, SIGMOID, 0.1));
    assert_eq!(loss.count, 2);
    assert!((loss.value() - 2.0 * 2.0_f64.ln()).abs() < 1e-6);
    let gradient = values(&leaf.grad(&loss.sum.backward()).expect("a gradient"));
    // beta times sigmoid(0) at real tokens, exactly zero elsewhere.
    let expected: Vec<f32> = CHOSEN_MASK.iter().map(|m| -0.05 * m).collect();
    assert_close("slopes", &gradient, &expected, Tolerance::absolute(1e-8));
}

#[test]
fn implied_rewards() {
    let (policy, reference) = (by_hand(0.0), pair_of_zeros());
    let (chosen, rejected) = dpo_rewards(&policy, &reference, 0.5);
    assert_eq!(values(&chosen), [-1.0, -1.5]);
    assert_eq!(values(&rejected), [-2.25, -2.0]);
}

fn pair_of_zeros() -> PairLogprobs {
    let device = Device::flex();
    let zeros = || {
        SequenceLogprobs::from_tokens(
            matrix(&[0.0; 6], 2, &device),
            matrix(&CHOSEN_MASK, 2, &device),
        )
    };
    PairLogprobs { chosen: zeros(), rejected: zeros() }
}

#[test]
fn odds_of_certainty_are_finite_and_close_elsewhere() {
    assert!(values(&orpo_odds_ratio(&pair_of_zeros())).iter().all(|loss| loss.is_finite()));
    let odds = |mean: f64| mean - (-mean.exp()).ln_1p();
    let by_loop = [(-1.0, -1.5), (-1.0, -4.0)].map(|(c, r)| {
        let p = sigmoid(odds(c) - odds(r));
        -p.ln() as f32
    });
    assert_close("odds", &values(&orpo_odds_ratio(&by_hand(0.0))), &by_loop, CLOSE);
}

/// Every loss of two pairs by a plain loop in f64.
#[test]
fn every_loss_equals_its_formula() {
    let (policy, reference) = (by_hand(0.0), pair_of_zeros());
    // Sums of the policy; the reference has 0. Lengths of the chosen answers: 2, 3; of the rejected ones: 3, 1.
    let pairs = [(-2.0, -4.5, 2.0, 3.0), (-3.0, -4.0, 3.0, 1.0)];
    let (beta, e) = (0.5_f64, 0.1_f64);
    let ls = |z: f64| -softplus_of_minus(z);
    let smooth = |z: f64| -(1.0 - e) * ls(z) - e * ls(-z);
    let label_smoothing = e;
    type Formula<'f> = Box<dyn Fn(f64, f64, f64, f64) -> f64 + 'f>;
    let by_score = |of: fn(f64) -> f64| -> Formula<'_> { Box::new(move |z, _, _, _| of(z)) };
    let cases: Vec<(PairLoss, Formula<'_>)> = vec![
        (SIGMOID, by_score(softplus_of_minus)),
        (PairLoss::Sigmoid { label_smoothing }, Box::new(|z, _, _, _| smooth(z))),
        (PairLoss::Hinge, by_score(|z| (1.0 - z).max(0.0))),
        (
            PairLoss::ExoPair { label_smoothing },
            Box::new(|z, _, _, _| {
                sigmoid(z) * (ls(z) - (1.0 - e).ln()) + sigmoid(-z) * (ls(-z) - e.ln())
            }),
        ),
        (
            PairLoss::Robust { label_smoothing },
            Box::new(|z, _, _, _| (-(1.0 - e) * ls(z) + e * ls(-z)) / (1.0 - 2.0 * e)),
        ),
        (
            PairLoss::DiscoPop { tau: 0.05 },
            Box::new(|z, _, _, _| {
                let mix = sigmoid(z / 0.05);
                -ls(z) * (1.0 - mix) + (-z).exp() * mix
            }),
        ),
        (PairLoss::NcaPair, Box::new(|_, c, r, _| -ls(c) - 0.5 * ls(-c) - 0.5 * ls(-r))),
        (PairLoss::BcoPair, Box::new(|_, c, r, _| -ls(c) - ls(-r))),
        (PairLoss::ApoZero, Box::new(|_, c, r, _| 1.0 - sigmoid(c) + sigmoid(r))),
        (PairLoss::ApoDown, Box::new(|z, c, _, _| sigmoid(c) + 1.0 - sigmoid(z))),
        (
            PairLoss::SppoHard,
            Box::new(|_, c, r, _| {
                (c / beta - 0.5 / beta).powi(2) + (r / beta + 0.5 / beta).powi(2)
            }),
        ),
        (PairLoss::Ipo, Box::new(|_, _, _, mean| (mean - 0.5 / beta).powi(2))),
        (PairLoss::SigmoidNorm, Box::new(|_, _, _, mean| -ls(beta * mean))),
        (PairLoss::Sft, Box::new(|_, c, _, _| -c / beta / 2.5)),
        (
            PairLoss::Cpo { label_smoothing, alpha: 0.25 },
            Box::new(|z, c, _, _| smooth(z) + 0.25 * -c / beta / 2.5),
        ),
    ];
    for (loss, formula) in cases {
        let expected = pairs.map(|(chosen, rejected, n_chosen, n_rejected)| {
            let (c, r) = (beta * chosen, beta * rejected);
            formula(c - r, c, r, chosen / n_chosen - rejected / n_rejected) as f32
        });
        let got = values(&dpo(&policy, &reference, loss, beta));
        let close = Tolerance::absolute(1e-5);
        assert_close(&format!("{loss:?}"), &got, &expected, close);
    }
}

#[test]
fn a_sorted_loss_compares_ranks_and_a_sum_is_weighted() {
    let (policy, reference) = (by_hand(0.0), pair_of_zeros());
    // log π⁺ − log π⁻ is 2.5 and 1, sorted 1 and 2.5; the reference has 0.
    let aot = dpo(&policy, &reference, PairLoss::Aot { label_smoothing: 0.0 }, 0.5);
    let expected = [0.5, 1.25].map(|z| softplus_of_minus(z) as f32);
    assert_close("aot", &values(&aot), &expected, CLOSE);
    // Sorted ρ⁺ is −3, −2 and sorted ρ⁻ is −4.5, −4.
    let unpaired = dpo(&policy, &reference, PairLoss::AotUnpaired { label_smoothing: 0.0 }, 0.5);
    let expected = [0.75, 1.0].map(|z| softplus_of_minus(z) as f32);
    assert_close("aot_unpaired", &values(&unpaired), &expected, CLOSE);

    let device = Device::flex();
    let objective = PairObjective {
        terms: vec![(SIGMOID, 0.8), (PairLoss::Sft, 0.5)],
        beta: 0.5,
        divergence: FDivergence::ReverseKl,
    };
    let weights_p = Some(Tensor::<1>::from_data([2.0, 3.0], &device));
    let context = PairContext { mean_chosen_tokens: 2.5, weights_p };
    let got = values(&objective.losses(&policy, &reference, &context));
    let one = |z: f64, chosen: f64| 0.8 * softplus_of_minus(0.5 * z) - 0.5 * chosen / 2.5;
    let expected = [2.0 * one(2.5, -2.0), 3.0 * one(1.0, -3.0)].map(|x| x as f32);
    assert_close("sum", &got, &expected, CLOSE);
    assert_eq!(objective.at_reference(), None);
}

#[test]
fn a_divergence_turns_ratios_into_scores() {
    let (policy, reference) = (by_hand(0.0), pair_of_zeros());
    let pairs = [(-2.0_f64, -4.5_f64), (-3.0, -4.0)];
    let scores: [(FDivergence, fn(f64) -> f64); 5] = [
        (FDivergence::ForwardKl, |x| 1.0 - (-x).exp()),
        (FDivergence::JensenShannon, |x| 2.0_f64.ln() - softplus_of_minus(x)),
        (FDivergence::Alpha(1.0), |x| x),
        (FDivergence::Alpha(0.5), |x| -2.0 * ((-0.5 * x).exp() - 1.0)),
        (FDivergence::Alpha(2.0), |x| x.exp() - 1.0),
    ];
    for (divergence, score) in scores {
        let objective = PairObjective { divergence, ..PairObjective::one(SIGMOID, 0.1) };
        let context = PairContext { mean_chosen_tokens: 1.0, weights_p: None };
        let got = values(&objective.losses(&policy, &reference, &context));
        let expected = pairs.map(|(c, r)| softplus_of_minus(0.1 * (score(c) - score(r))) as f32);
        let close = Tolerance { absolute: 1e-5, ..CLOSE };
        assert_close(&format!("{divergence:?}"), &got, &expected, close);
    }
}

#[test]
fn tokens_beyond_the_shorter_answer_have_their_own_weight() {
    let mask = [false, true, true, false, true, true, true, true];
    let weights = answer_weights(&mask, 4, 0.25);
    assert_eq!(weights, [0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.25, 0.25]);
    assert_eq!(answer_weights(&mask, 4, 1.0), mask.map(|is_one| f32::from(u8::from(is_one))));
}
