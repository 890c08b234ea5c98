//! Generalised advantage estimation, and whitening.
//!
//! Host code in f64. The caller passes unmasked tokens only.

/// Advantages and returns of one episode.
#[derive(Clone, Debug, PartialEq)]
pub struct Advantages {
    /// Advantage of each token.
    pub advantages: Vec<f32>,
    /// Return of each token, the target of the value model: advantage plus value.
    pub returns: Vec<f32>,
}

/// Generalised advantage estimation (Schulman et al. 2016, equation 16) over one episode:
/// δₜ = rₜ + γ·Vₜ₊₁ − Vₜ and Âₜ = δₜ + γλ·Âₜ₊₁, with V = 0 after the last token.
///
/// # Panics
/// If there is not one value for each reward.
pub fn gae(rewards: &[f32], values: &[f32], gamma: f64, lambda: f64) -> Advantages {
    assert_eq!(rewards.len(), values.len(), "one value for each reward");
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    let backwards = rewards.iter().zip(values).rev().map(|(reward, value)| {
        let (reward, value) = (f64::from(*reward), f64::from(*value));
        let delta = reward + gamma * next_value - value;
        next_advantage = delta + gamma * lambda * next_advantage;
        next_value = value;
        (next_advantage as f32, (next_advantage + value) as f32)
    });
    let (mut advantages, mut returns): (Vec<f32>, Vec<f32>) = backwards.unzip();
    advantages.reverse();
    returns.reverse();
    Advantages { advantages, returns }
}

/// The moments that whitening normalises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whitening {
    /// Mean 0 and variance 1, for advantages.
    Shift,
    /// Variance 1 and the original mean, for rewards, whose sign matters.
    KeepMean,
}

/// Scales values to variance 1 as TRL does: (x − mean)/√(var + 1e-8), with the n − 1 variance.
///
/// A single value has no variance and is only shifted.
pub fn whiten(values: &mut [f32], whitening: Whitening) {
    let n = values.len() as f64;
    if values.is_empty() {
        return;
    }
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / n;
    let squares = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>();
    let scale = if values.len() > 1 { (squares / (n - 1.0) + 1e-8).sqrt().recip() } else { 1.0 };
    let shift = if whitening == Whitening::KeepMean { mean } else { 0.0 };
    for value in values {
        *value = ((f64::from(*value) - mean) * scale + shift) as f32;
    }
}
