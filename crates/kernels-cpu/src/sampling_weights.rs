//! Exponentials of a row of logits on the host, for sampling.

use crate::simd::{self, multiversion};

/// Exponentials of logits, relative to the largest.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingWeights {
    /// The largest logit; minus infinity if there is none. NaNs are skipped.
    pub largest: f32,
    /// e^(logit - largest), each to about one unit in the last place; 0 below e^-87.
    pub values: Vec<f32>,
    /// Their sum.
    pub sum: f64,
}

/// The exponentials of `logits / temperature`.
pub fn exponentials(logits: &[f32], temperature: f64) -> SamplingWeights {
    let mut values = logits.to_vec();
    let (largest, sum) = fill(&mut values, (1.0 / temperature) as f32);
    SamplingWeights { largest, values, sum }
}

multiversion! {
    fn fill(values: &mut [f32], scale: f32) -> (f32, f64) {
        if scale != 1.0 {
            for value in values.iter_mut() {
                *value *= scale;
            }
        }
        let largest = simd::max(values);
        let mut sum = 0.0;
        // Short sums in f32, their sum in f64.
        for chunk in values.chunks_mut(256) {
            sum += f64::from(simd::exp_and_sum(chunk, largest));
        }
        (largest, sum)
    }
}

#[cfg(test)]
mod tests {
    use super::exponentials;

    #[test]
    fn weights_are_close_to_f64() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 97) % 501) as f32 / 50.0 - 3.0).collect();
        for temperature in [1.0, 0.7] {
            let found = exponentials(&logits, temperature);
            let top = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let want = |x: f32| ((f64::from(x) - top) / temperature).exp();
            let sum: f64 = logits.iter().map(|x| want(*x)).sum();
            assert!((found.sum / sum - 1.0).abs() < 2e-6, "{} {sum}", found.sum);
            for (value, logit) in found.values.iter().zip(&logits) {
                assert!((f64::from(*value) - want(*logit)).abs() < 2e-6);
            }
        }
        assert_eq!(exponentials(&[f32::NEG_INFINITY, 2.0], 1.0).values, [0.0, 1.0]);
    }
}
