//! Preference losses without a reward model: DPO and related ones.
//!
//! Sums and lengths of answers come from one mask. The functions return one loss per pair, which
//! [`LossSum::of`](crate::LossSum::of) sums.
//!
//! Shape legend: p pairs, t time.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;

/// log π(answer | prompt) of one answer of each pair, with the number of its tokens.
#[derive(Clone, Debug)]
pub struct SequenceLogprobs {
    sums_p: Tensor<1>,
    n_tokens_p: Tensor<1>,
}

impl SequenceLogprobs {
    /// Sums over the tokens whose mask is 1. Values at the others have no effect.
    pub fn from_tokens(logprobs_pt: Tensor<2>, mask_pt: Tensor<2>) -> Self {
        let [p, _] = logprobs_pt.dims();
        let outside_pt = mask_pt.clone().equal_elem(0.0);
        let sums_p = sum_over_time(logprobs_pt.mask_fill(outside_pt, 0.0));
        let n_tokens_p = mask_pt.sum_dim(1).reshape([p]);
        Self { sums_p, n_tokens_p }
    }

    /// From precomputed sums and numbers of tokens, `[p]` each, such as those of a reference model.
    pub fn from_sums(sums_p: Tensor<1>, n_tokens_p: Tensor<1>) -> Self {
        Self { sums_p, n_tokens_p }
    }

    /// The number of tokens of each answer, `[p]`.
    pub fn n_tokens(&self) -> Tensor<1> {
        self.n_tokens_p.clone()
    }

    /// log π of the whole answer, `[p]`.
    pub fn sums(&self) -> Tensor<1> {
        self.sums_p.clone()
    }

    /// Mean log π per token, `[p]`; 0 for an answer without tokens.
    pub fn means(&self) -> Tensor<1> {
        self.sums_p.clone() / self.n_tokens_p.clone().clamp_min(1.0)
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

/// log π − log π_ref of the chosen answer minus that of the rejected one, in the order of the papers' formulas.
fn log_ratio_difference(
    policy: &PairLogprobs,
    reference: &PairLogprobs,
    of: fn(&SequenceLogprobs) -> Tensor<1>,
) -> Tensor<1> {
    let chosen_p = of(&policy.chosen) - of(&reference.chosen);
    let rejected_p = of(&policy.rejected) - of(&reference.rejected);
    chosen_p - rejected_p
}

/// Losses over the difference between the preferences of policy and reference model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DpoLoss {
    /// −(1 − ε)·log σ(βz) − ε·log σ(−βz): Rafailov et al. 2023, equation 7; with ε above 0,
    /// Mitchell 2023, "A note on DPO with noisy preferences & relationship to IPO".
    Sigmoid {
        /// ε: the share of pairs with swapped answers, 0 for none.
        label_smoothing: f64,
    },
    /// max(0, 1 − βz): Zhao et al. 2023, "SLiC-HF", normalised as in Liu et al. 2024.
    Hinge,
    /// (z̄ − 1/(2β))² with mean log-probabilities per token: Azar et al. 2023, equation 17, averaged over tokens as its
    /// authors advise.
    Ipo,
}

/// One loss per pair, `[p]`, with z = (log π⁺ − log π_ref⁺) − (log π⁻ − log π_ref⁻).
pub fn dpo(policy: &PairLogprobs, reference: &PairLogprobs, loss: DpoLoss, beta: f64) -> Tensor<1> {
    let scaled_p =
        || log_ratio_difference(policy, reference, SequenceLogprobs::sums).mul_scalar(beta);
    match loss {
        DpoLoss::Sigmoid { label_smoothing: 0.0 } => log_sigmoid(scaled_p()).neg(),
        DpoLoss::Sigmoid { label_smoothing } => {
            let right_p = log_sigmoid(scaled_p()).mul_scalar(1.0 - label_smoothing);
            (right_p + log_sigmoid(scaled_p().neg()).mul_scalar(label_smoothing)).neg()
        }
        DpoLoss::Hinge => scaled_p().neg().add_scalar(1.0).clamp_min(0.0),
        DpoLoss::Ipo => {
            let mean_p = log_ratio_difference(policy, reference, SequenceLogprobs::means);
            mean_p.sub_scalar(1.0 / (2.0 * beta)).square()
        }
    }
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
