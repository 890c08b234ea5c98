//! The distance of a model with packed weights from the one before: the largest difference of a logit, and the KL
//! divergence of the distributions of next tokens.

use serde::{Deserialize, Serialize};

use super::{Prompt, ProvenModel};

/// How far packing moved a model, over all positions of the prompts and greedy answers of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SourceDistance {
    /// Mean of KL(source ‖ packed) over positions, in nats.
    pub kl_nats_per_token: f64,
    /// The largest difference of a logit.
    pub largest_logit_difference: f64,
}

/// The logits of each position of each prompt.
pub(super) type PromptLogits = Vec<Vec<Vec<f32>>>;

/// The logits of a model on prompts and greedy answers.
pub(super) fn logits_of<M: ProvenModel>(model: &M, prompts: &[Prompt]) -> PromptLogits {
    prompts.iter().map(|prompt| model.outputs(&prompt.answered_ids())).collect()
}

/// The distance between the stored logits of the source and those of `model`.
pub(super) fn distance<M: ProvenModel>(
    source: &PromptLogits,
    model: &M,
    prompts: &[Prompt],
) -> SourceDistance {
    let (mut kl, mut n, mut largest) = (0.0, 0_u32, 0.0_f64);
    for (prompt, source) in prompts.iter().zip(source) {
        for (p, q) in source.iter().zip(model.outputs(&prompt.answered_ids())) {
            kl += kl_divergence(p, &q);
            n += 1;
            for (p, q) in p.iter().zip(q) {
                let difference = f64::from(*p) - f64::from(q);
                // Not a number counts as the largest.
                largest =
                    if difference.is_nan() { f64::NAN } else { largest.max(difference.abs()) };
            }
        }
    }
    let kl_nats_per_token = kl / f64::from(n.max(1));
    SourceDistance { kl_nats_per_token, largest_logit_difference: largest }
}

/// KL(p ‖ q) of the distributions of two rows of logits, in nats.
pub fn kl_divergence(p: &[f32], q: &[f32]) -> f64 {
    let log_sum = |logits: &[f32]| {
        let max = logits.iter().fold(f64::NEG_INFINITY, |max, x| max.max(f64::from(*x)));
        max + logits.iter().map(|x| (f64::from(*x) - max).exp()).sum::<f64>().ln()
    };
    let (p_sum, q_sum) = (log_sum(p), log_sum(q));
    let term = |(p, q): (&f32, &f32)| {
        let (p, q) = (f64::from(*p) - p_sum, f64::from(*q) - q_sum);
        p.exp() * (p - q)
    };
    p.iter().zip(q).map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::kl_divergence;

    #[test]
    fn divergence_of_logits() {
        assert_eq!(kl_divergence(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]), 0.0);
        // A constant changes no distribution.
        assert!(kl_divergence(&[1.0, 2.0, 3.0], &[11.0, 12.0, 13.0]).abs() < 1e-12);
        // p = (1/2, 1/2), q = (1/4, 3/4): ½ ln 2 + ½ ln(2/3).
        let expected = 0.5 * 2.0_f64.ln() + 0.5 * (2.0_f64 / 3.0).ln();
        assert!((kl_divergence(&[0.0, 0.0], &[0.0, 3.0_f32.ln()]) - expected).abs() < 1e-6);
        assert!(kl_divergence(&[0.0, f32::NAN], &[0.0, 1.0]).is_nan());
    }
}
