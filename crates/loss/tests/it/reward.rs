//! Pair losses of reward models against the reference, and for extreme scores.

use loss::{LossSum, pairwise_reward, reward_centering};
use testkit::{Golden, Tolerance, assert_close, golden_dir, values};

use super::support::{constant, gradient, sigmoid, softplus_of_minus, tracked, wave};

#[test]
fn three_losses_equal_the_references() {
    let io = Golden::open(&golden_dir("reward/llama").join("io.safetensors"));
    let scores = io.f32("scores");
    // Rows alternate: chosen, rejected.
    let chosen: Vec<f32> = scores.iter().step_by(2).copied().collect();
    let rejected: Vec<f32> = scores.iter().skip(1).step_by(2).copied().collect();
    let (chosen, rejected) = (constant(&chosen), constant(&rejected));
    let mean = |sum: LossSum| sum.value() / sum.count as f64;
    let plain = mean(pairwise_reward(chosen.clone(), rejected.clone(), None));
    let margin = Some(constant(&io.f32("margin")));
    let with_margin = mean(pairwise_reward(chosen.clone(), rejected.clone(), margin));
    let centred = plain + 0.01 * mean(reward_centering(chosen, rejected));
    let expected =
        ["loss", "loss_with_margin", "loss_centered"].map(|name| f64::from(io.f32(name)[0]));
    for (got, expected) in [plain, with_margin, centred].iter().zip(expected) {
        assert!((got - expected).abs() < 2e-6, "{got} {expected}");
    }
}

#[test]
fn gradients_are_those_of_the_logistic_function() {
    let (c, r, m) = (wave(9, 0.7), wave(9, 1.1), wave(9, 0.3));
    let (chosen, rejected) = (tracked(&c), tracked(&r));
    let loss = pairwise_reward(chosen.clone(), rejected, Some(super::support::untracked(&m)));
    assert_eq!(loss.count, 9);
    let x: Vec<f64> = (0..9).map(|i| f64::from(c[i]) - f64::from(r[i]) - f64::from(m[i])).collect();
    let expected: f64 = x.iter().map(|x| softplus_of_minus(*x)).sum();
    assert!((loss.value() - expected).abs() < 1e-5);
    let slopes: Vec<f32> = x.iter().map(|x| -sigmoid(-x) as f32).collect();
    let got = gradient(&loss.sum, &chosen);
    assert_close("slopes", &got, &slopes, Tolerance::absolute(1e-6));
}

#[test]
fn far_and_equal_scores_are_finite() {
    let differences = [-1e4, -200.0, -90.0, 0.0, 90.0, 200.0, 1e4_f32];
    let (chosen, rejected) = (tracked(&differences), super::support::untracked(&[0.0; 7]));
    let loss = pairwise_reward(chosen.clone(), rejected, None);
    assert!((loss.value() - (1e4 + 200.0 + 90.0 + 2.0_f64.ln())).abs() < 1e-2);
    let expected = [-1.0, -1.0, -1.0, -0.5, 0.0, 0.0, 0.0];
    let got = gradient(&loss.sum, &chosen);
    assert_close("slopes", &got, &expected, Tolerance::absolute(1e-6));
}

#[test]
fn centring_has_a_gradient_for_both_scores() {
    let (chosen, rejected) = (tracked(&[1.0, -0.5]), tracked(&[0.5, 0.25]));
    let loss = reward_centering(chosen, rejected.clone());
    assert_eq!(loss.value(), 1.5 * 1.5 + 0.25 * 0.25);
    assert_eq!(gradient(&loss.sum, &rejected), [3.0, -0.5]);
    assert_eq!(values(&loss.sum).len(), 1);
}
