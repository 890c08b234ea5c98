//! GAE and whitening against plain sums and TRL's rollouts.

use loss::{Whitening, gae, kl_k1, kl_k3, whiten};
use testkit::{Golden, Tolerance, assert_close, golden_dir, values};

use super::support::{constant, wave};

#[test]
fn advantages_are_discounted_sums_of_td_errors() {
    let (rewards, value) = (wave(7, 0.9), wave(7, 1.7));
    let (gamma, lambda) = (0.97, 0.9);
    let got = gae(&rewards, &value, gamma, lambda);
    let v = |t: usize| value.get(t).map_or(0.0, |v| f64::from(*v));
    for t in 0..7 {
        let surprise = |s: usize| f64::from(rewards[s]) + gamma * v(s + 1) - v(s);
        let sum: f64 = (t..7).map(|s| (gamma * lambda).powi((s - t) as i32) * surprise(s)).sum();
        assert!((f64::from(got.advantages[t]) - sum).abs() < 1e-6);
        assert!((f64::from(got.returns[t]) - sum - v(t)).abs() < 1e-6);
    }
    // With lambda 1 and gamma 1 a return is the sum of the rewards that follow, for any values.
    let sums = gae(&[0.0, 1.0, -3.0], &[5.0, -2.0, 0.5], 1.0, 1.0);
    assert_eq!(sums.returns, [-2.0, -2.0, -3.0]);
    assert!(gae(&[], &[], 1.0, 1.0).returns.is_empty());
}

#[test]
fn whitening_removes_scale_and_mean() {
    let values = wave(50, 0.61);
    let mean = |x: &[f32]| x.iter().map(|x| f64::from(*x)).sum::<f64>() / x.len() as f64;
    let mut shifted = values.clone();
    whiten(&mut shifted, Whitening::Shift);
    let variance = shifted.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 49.0;
    assert!(mean(&shifted).abs() < 1e-7 && (variance - 1.0).abs() < 1e-6);
    let mut kept = values.clone();
    whiten(&mut kept, Whitening::KeepMean);
    assert!((mean(&kept) - mean(&values)).abs() < 1e-6);
    for few in [vec![], vec![3.0], vec![2.0, 2.0]] {
        let mut few: Vec<f32> = few;
        whiten(&mut few, Whitening::Shift);
        assert!(few.iter().all(|x| *x == 0.0));
    }
}

#[test]
fn kl_estimators() {
    let (p, q) = (constant(&[-1.0, -2.0, -0.5]), constant(&[-1.0, -1.0, -3.0]));
    assert_eq!(values(&kl_k1(p.clone(), q.clone())), [0.0, -1.0, 2.5]);
    let expected = [0.0, 1.0_f64.exp() - 2.0, (-2.5_f64).exp() + 1.5].map(|x| x as f32);
    let got = values(&kl_k3(p.clone(), q));
    assert_close("k3", &got, &expected, Tolerance::absolute(1e-6));
    assert_eq!(values(&kl_k3(p.clone(), p)), [0.0; 3]);
}

/// Settings of the two reference cases: k3 and whitening of rewards, or neither.
#[test]
fn rollouts_of_trl() {
    for (case, whitened) in [("k1", false), ("k3_whiten", true)] {
        let dir = golden_dir(&format!("ppo/{case}"));
        follow_rollout(&Golden::open(&dir.join("rollout.safetensors")), whitened);
    }
}

fn follow_rollout(file: &Golden, whitened: bool) {
    let [rows, t] = file.shape("rewards")[..] else { panic!("two axes") };
    let masked = |name: &str| -> Vec<bool> { file.i64(name).iter().map(|m| *m != 0).collect() };
    let (outside, outside_values) = (masked("padding_mask"), masked("padding_mask_p1"));
    let close = Tolerance::absolute(2e-5);

    let (logprobs, reference) =
        (constant(&file.f32("logprobs")), constant(&file.f32("ref_logprobs")));
    let kl = if whitened { kl_k3(logprobs, reference) } else { kl_k1(logprobs, reference) };
    let kl = values(&kl);
    assert_close("kl", &kl, &file.f32("kl"), close);

    // The score is added after the end token; 0.05 is the reference's coefficient.
    let lengths = file.i64("sequence_lengths");
    let mut scores = file.f32("scores");
    let mut rewards: Vec<f32> = kl.iter().map(|kl| -0.05 * kl).collect();
    for (row, score) in scores.iter_mut().enumerate() {
        let end = lengths[row] as usize;
        let at = if end + 1 < t { end + 1 } else { end };
        rewards[row * t + at] += *score;
    }
    if whitened {
        let mut real: Vec<f32> = pick(&rewards, &outside_values);
        whiten(&mut real, Whitening::KeepMean);
        put(&mut rewards, &outside_values, &real);
    }
    assert_close("rewards", &rewards, &file.f32("rewards"), close);

    let value = file.f32("values");
    let (mut advantages, mut returns) = (Vec::new(), Vec::new());
    for row in 0..rows {
        let range = row * t..(row + 1) * t;
        let got = gae(&rewards[range.clone()], &value[range], 0.99, 0.95);
        advantages.extend(got.advantages);
        returns.extend(got.returns);
    }
    assert_close("returns", &returns, &file.f32("returns"), close);
    assert_close("before", &advantages, &file.f32("advantages_before_whitening"), close);
    let mut real = pick(&advantages, &outside);
    whiten(&mut real, Whitening::Shift);
    let mut all = vec![0.0; advantages.len()];
    put(&mut all, &outside, &real);
    assert_close("advantages", &all, &file.f32("advantages"), close);
}

fn pick(values: &[f32], outside: &[bool]) -> Vec<f32> {
    values.iter().zip(outside).filter(|(_, outside)| !**outside).map(|(x, _)| *x).collect()
}

fn put(values: &mut [f32], outside: &[bool], real: &[f32]) {
    let inside = values.iter_mut().zip(outside).filter(|(_, outside)| !**outside);
    inside.zip(real).for_each(|((x, _), real)| *x = *real);
}
