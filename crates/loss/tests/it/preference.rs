//! DPO and related losses against the reference's vectors and plain loops, and with extreme values at masked-out places.

use burn::tensor::{Device, Tensor, TensorData};
use loss::{
    DpoLoss, LossSum, PairLogprobs, SequenceLogprobs, dpo, dpo_rewards, orpo_odds_ratio, simpo,
};
use testkit::{Golden, Tolerance, assert_close, golden_dir, values};

use super::support::{sigmoid, softplus_of_minus};

const CLOSE: Tolerance = Tolerance::absolute(1e-6);

fn golden() -> Golden {
    Golden::open(&golden_dir("preference.safetensors"))
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
        ("dpo_sigmoid", dpo(&policy, &reference, DpoLoss::Sigmoid { label_smoothing: 0.0 }, 0.1)),
        ("dpo_hinge", dpo(&policy, &reference, DpoLoss::Hinge, 0.1)),
        ("dpo_ipo", dpo(&policy, &reference, DpoLoss::Ipo, 0.1)),
        (
            "dpo_label_smoothing_0_1",
            dpo(&policy, &reference, DpoLoss::Sigmoid { label_smoothing: 0.1 }, 0.1),
        ),
        ("simpo_beta2_gamma1", simpo(&policy, 2.0, 1.0)),
        ("orpo_odds_ratio_term", orpo_odds_ratio(&policy)),
    ];
    for (name, got) in losses {
        assert_close(name, &values(&got), &file.f32(name), CLOSE);
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
        for loss in [DpoLoss::Sigmoid { label_smoothing: 0.2 }, DpoLoss::Hinge, DpoLoss::Ipo] {
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
    let loss =
        LossSum::of(dpo(&policy, &reference, DpoLoss::Sigmoid { label_smoothing: 0.0 }, 0.1));
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
