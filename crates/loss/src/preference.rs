//! Log-probabilities of the answers of pairs, and preference losses without a reference model.
//!
//! Sums and lengths of answers come from one mask. The functions return one loss per pair, which
//! [`LossSum::of`](crate::LossSum::of) sums.
//!
//! Shape legend: p pairs, t time.

use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Tensor, TensorData};

/// log π(answer | prompt) of one answer of each pair, with the number of its tokens.
#[derive(Clone, Debug)]
pub struct SequenceLogprobs {
    sums_p: Tensor<1>,
    /// Sums in which every token counts once.
    unweighted_p: Tensor<1>,
    n_tokens_p: Tensor<1>,
}

impl SequenceLogprobs {
    /// Sums over the tokens whose mask is 1. Values at the others have no effect.
    pub fn from_tokens(logprobs_pt: Tensor<2>, mask_pt: Tensor<2>) -> Self {
        let [p, _] = logprobs_pt.dims();
        let outside_pt = mask_pt.clone().equal_elem(0.0);
        let sums_p = sum_over_time(logprobs_pt.mask_fill(outside_pt, 0.0));
        let n_tokens_p = mask_pt.sum_dim(1).reshape([p]);
        Self { unweighted_p: sums_p.clone(), sums_p, n_tokens_p }
    }

    /// Sums over the positions with a target, for rows of `t` positions: `logprobs_n` has one value for each position, `targets`
    /// the token that it predicts, or -1 for none.
    ///
    /// # Panics
    /// If the number of targets is not that of the positions.
    pub fn of_targets(logprobs_n: Tensor<1>, targets: &[i32], t: usize) -> Self {
        let rows = targets.len() / t.max(1);
        let mask: Vec<f32> = targets.iter().map(|id| f32::from(u8::from(*id >= 0))).collect();
        let mask = TensorData::new(mask, [rows, t]);
        let mask_pt = Tensor::from_data(mask, &logprobs_n.device());
        Self::from_tokens(logprobs_n.reshape([rows, t]), mask_pt)
    }

    /// The same answers with a weight for each token in their sums. Lengths and unweighted sums stay.
    #[must_use]
    pub fn weighted(self, logprobs_pt: Tensor<2>, weights_pt: Tensor<2>) -> Self {
        let outside_pt = weights_pt.clone().equal_elem(0.0);
        let sums_p = sum_over_time(logprobs_pt.mask_fill(outside_pt, 0.0) * weights_pt);
        Self { sums_p, ..self }
    }

    /// From precomputed sums and numbers of tokens, `[p]` each, such as those of a reference model.
    pub fn from_sums(sums_p: Tensor<1>, n_tokens_p: Tensor<1>) -> Self {
        Self { unweighted_p: sums_p.clone(), sums_p, n_tokens_p }
    }

    /// The number of tokens of each answer, `[p]`.
    pub fn n_tokens(&self) -> Tensor<1> {
        self.n_tokens_p.clone()
    }

    /// log π of the whole answer, `[p]`.
    pub fn sums(&self) -> Tensor<1> {
        self.sums_p.clone()
    }

    /// log π of the whole answer with every token counted once, `[p]`.
    pub fn unweighted_sums(&self) -> Tensor<1> {
        self.unweighted_p.clone()
    }

    /// Values of answers divided by their numbers of tokens, `[p]`.
    pub fn per_token(&self, values_p: Tensor<1>) -> Tensor<1> {
        values_p / self.n_tokens_p.clone().clamp_min(1.0)
    }

    /// Mean log π per token, `[p]`; 0 for an answer without tokens.
    pub fn means(&self) -> Tensor<1> {
        self.per_token(self.sums_p.clone())
    }
}

/// Sums over time in four strands, each of every fourth token, which are then added.
///
/// Rounding errors grow a quarter as fast with the length, and torch sums in the same order: IPO squares numbers near 5, so
/// another order would change the loss by a few 1e-6.
fn sum_over_time(x_pt: Tensor<2>) -> Tensor<1> {
    let [p, t] = x_pt.dims();
    let n_missing = t.next_multiple_of(STRANDS) - t;
    let x_pt = if n_missing > 0 {
        let zeros = Tensor::zeros([p, n_missing], &x_pt.device());
        Tensor::cat(vec![x_pt, zeros], 1)
    } else {
        x_pt
    };
    let strands_pts = x_pt.reshape([p, t.div_ceil(STRANDS), STRANDS]);
    strands_pts.sum_dim(1).reshape([p, STRANDS]).sum_dim(1).reshape([p])
}

const STRANDS: usize = 4;

/// Log-probabilities of both answers of each pair under one model.
#[derive(Clone, Debug)]
pub struct PairLogprobs {
    /// The preferred answers.
    pub chosen: SequenceLogprobs,
    /// The rejected answers.
    pub rejected: SequenceLogprobs,
}

/// Weights of the tokens of pairs whose rows alternate between chosen and rejected answers of `t` positions each: 1 for the
/// first tokens of an answer, up to the length of the pair's shorter answer, `ld_alpha` for the rest, 0 outside the mask.
/// LD-DPO: Liu et al. 2024, "Length Desensitization in Direct Preference Optimization".
pub fn answer_weights(mask: &[bool], t: usize, ld_alpha: f64) -> Vec<f32> {
    let t = t.max(1);
    let mut weights = Vec::with_capacity(mask.len());
    for pair in mask.chunks(2 * t) {
        let lengths = pair.chunks(t).map(|row| row.iter().filter(|is_token| **is_token).count());
        let shared = lengths.min().unwrap_or(0);
        for row in pair.chunks(t) {
            let mut n = 0;
            weights.extend(row.iter().map(|is_token| {
                n += usize::from(*is_token);
                match (is_token, n <= shared) {
                    (false, _) => 0.0,
                    (true, true) => 1.0,
                    (true, false) => ld_alpha as f32,
                }
            }));
        }
    }
    weights
}

/// Weight of each pair by the policy's probability of its answers, `[p]`, without a gradient: the product over both answers
/// of the exponential of the mean of log π(token) − log Σ π². WPO: Zhou et al. 2024, equation 2.
///
/// `sharpened` are the log-probabilities at temperature ½, from which Σ π² follows: log π½ = 2 log π − log Σ π².
pub fn pair_weights(policy: &PairLogprobs, sharpened: &PairLogprobs) -> Tensor<1> {
    let aligned = |policy: &SequenceLogprobs, sharpened: &SequenceLogprobs| {
        let difference_p = (sharpened.unweighted_sums() - policy.unweighted_sums()).detach();
        policy.per_token(difference_p)
    };
    let chosen_p = aligned(&policy.chosen, &sharpened.chosen);
    (chosen_p + aligned(&policy.rejected, &sharpened.rejected)).exp()
}

/// The implicit rewards β(log π − log π_ref) of chosen and rejected answers, `[p]` each: TRL's `rewards/chosen` and
/// `rewards/rejected`.
pub fn dpo_rewards(
    policy: &PairLogprobs,
    reference: &PairLogprobs,
    beta: f64,
) -> (Tensor<1>, Tensor<1>) {
    let reward = |policy: &SequenceLogprobs, reference: &SequenceLogprobs| {
        (policy.sums() - reference.sums()).mul_scalar(beta)
    };
    (reward(&policy.chosen, &reference.chosen), reward(&policy.rejected, &reference.rejected))
}

/// −log σ(β(log π⁺/|y⁺| − log π⁻/|y⁻|) − γ) per pair: SimPO (Meng et al. 2024, equation 6), which needs no reference
/// model.
pub fn simpo(policy: &PairLogprobs, beta: f64, gamma: f64) -> Tensor<1> {
    let difference_p = policy.chosen.means() - policy.rejected.means();
    log_sigmoid(difference_p.mul_scalar(beta).sub_scalar(gamma)).neg()
}

/// −log σ(log odds⁺ − log odds⁻) per pair, with odds = p/(1 − p) of the mean log-probability per token: the term of ORPO
/// (Hong et al. 2024, equation 7) that is added, times λ, to the chosen answer's cross-entropy.
///
/// Mean log-probabilities are at most -1e-6, so that the odds are finite.
pub fn orpo_odds_ratio(policy: &PairLogprobs) -> Tensor<1> {
    let log_odds = |mean_p: Tensor<1>| {
        let mean_p = mean_p.clamp_max(-1e-6);
        mean_p.clone() - mean_p.exp().neg().log1p()
    };
    let difference_p = log_odds(policy.chosen.means()) - log_odds(policy.rejected.means());
    log_sigmoid(difference_p).neg()
}
