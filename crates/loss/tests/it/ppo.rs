//! PPO's clipped losses against plain loops, at the edges of clipping, and with extreme values at masked-out places.

use loss::{ppo_policy, ppo_value};
use testkit::{Tolerance, assert_close, values};

use super::support::{gradient, mask, tracked, untracked, wave};

const N: usize = 24;
const CLIP: f64 = 0.2;

fn real() -> Vec<bool> {
    (0..N).map(|i| i % 5 != 3).collect()
}

/// (loss, gradient with respect to the log-probability, clipped) of one token.
fn policy_by_hand(logprob: f32, old: f32, advantage: f32) -> (f64, f64, bool) {
    let ratio = (f64::from(logprob) - f64::from(old)).exp();
    let advantage = f64::from(advantage);
    let (plain, clipped) = (-advantage * ratio, -advantage * ratio.clamp(1.0 - CLIP, 1.0 + CLIP));
    if clipped > plain { (clipped, 0.0, true) } else { (plain, plain, false) }
}

fn value_by_hand(value: f32, old: f32, target: f32) -> (f64, f64, bool) {
    let (value, old, target) = (f64::from(value), f64::from(old), f64::from(target));
    let clipped = value.clamp(old - CLIP, old + CLIP);
    let (plain, other) = ((value - target).powi(2), (clipped - target).powi(2));
    if other > plain { (0.5 * other, 0.0, true) } else { (0.5 * plain, value - target, false) }
}

type ByHand = fn(f32, f32, f32) -> (f64, f64, bool);

/// The sum, the gradient of each token, and the number of clipped ones.
fn sum_up(by_hand: ByHand, a: &[f32], b: &[f32], c: &[f32]) -> (f64, Vec<f32>, f32) {
    let (mut sum, mut slopes, mut n_clipped) = (0.0, vec![0.0; N], 0.0);
    for i in (0..N).filter(|i| real()[*i]) {
        let (loss, slope, clipped) = by_hand(a[i], b[i], c[i]);
        sum += loss;
        slopes[i] = slope as f32;
        n_clipped += f32::from(u8::from(clipped));
    }
    (sum, slopes, n_clipped)
}

/// Values where the mask is true, and an extreme value elsewhere.
fn with(hostile: Option<f32>, x: &[f32]) -> Vec<f32> {
    let Some(hostile) = hostile else { return x.to_vec() };
    x.iter().zip(real()).map(|(x, real)| if real { *x } else { hostile }).collect()
}

const HOSTILE: [Option<f32>; 4] = [None, Some(1e9), Some(f32::INFINITY), Some(f32::NAN)];

#[test]
fn policy_loss_and_gradient() {
    let (new, advantages) = (wave(N, 0.37), wave(N, 1.9));
    let old: Vec<f32> = new.iter().zip(wave(N, 0.83)).map(|(x, y)| x + 0.3 * y).collect();
    let (sum, slopes, n_clipped) = sum_up(policy_by_hand, &new, &old, &advantages);
    assert!(n_clipped > 2.0);
    for hostile in HOSTILE {
        let logprobs = tracked(&with(hostile, &new));
        let got = ppo_policy(
            logprobs.clone(),
            untracked(&with(hostile, &old)),
            untracked(&with(hostile, &advantages)),
            mask(&real()),
            19,
            CLIP,
        );
        assert!((got.loss.value() - sum).abs() < 1e-5, "{hostile:?}");
        assert_eq!(got.loss.count, 19);
        assert_eq!(values(&got.n_clipped), [n_clipped]);
        let close = Tolerance::absolute(1e-6);
        assert_close("slopes", &gradient(&got.loss.sum, &logprobs), &slopes, close);
        let log_ratio = |i: usize| if real()[i] { new[i] - old[i] } else { 0.0 };
        let ratios: Vec<f32> = (0..N).map(|i| log_ratio(i).exp()).collect();
        assert_close("ratio", &values(&got.ratio_n), &ratios, close);
        let kl: Vec<f32> = (0..N).map(|i| 0.5 * log_ratio(i).powi(2)).collect();
        assert_close("kl", &values(&got.approx_kl_n), &kl, close);
    }
}

#[test]
fn value_loss_and_gradient() {
    let (new, targets) = (wave(N, 0.41), wave(N, 1.3));
    let old: Vec<f32> = new.iter().zip(wave(N, 0.77)).map(|(x, y)| x + 0.2 * y).collect();
    let (sum, slopes, n_clipped) = sum_up(value_by_hand, &new, &old, &targets);
    assert!(n_clipped > 2.0);
    for hostile in HOSTILE {
        let value = tracked(&with(hostile, &new));
        let got = ppo_value(
            value.clone(),
            untracked(&with(hostile, &old)),
            untracked(&with(hostile, &targets)),
            mask(&real()),
            19,
            CLIP,
        );
        assert!((got.loss.value() - sum).abs() < 1e-5, "{hostile:?}");
        assert_eq!(values(&got.n_clipped), [n_clipped]);
        let close = Tolerance::absolute(1e-6);
        assert_close("slopes", &gradient(&got.loss.sum, &value), &slopes, close);
    }
}

#[test]
fn the_first_pass_has_ratio_one_and_a_full_gradient() {
    let logprobs = wave(6, 0.9);
    let advantages = [1.0, -2.0, 0.5, 0.0, 3.0, -1.0];
    let leaf = tracked(&logprobs);
    let all = mask(&[true; 6]);
    let got = ppo_policy(leaf.clone(), untracked(&logprobs), untracked(&advantages), all, 6, CLIP);
    assert_eq!(values(&got.ratio_n), [1.0; 6]);
    assert_eq!(values(&got.n_clipped), [0.0]);
    let slopes = advantages.map(|a: f32| -a);
    assert_close("slopes", &gradient(&got.loss.sum, &leaf), &slopes, Tolerance::absolute(0.0));
}
