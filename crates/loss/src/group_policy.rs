//! Policy losses of group-relative policy optimization and its relatives, over padded completions.
//!
//! The names are TRL's. Old and reference log-probabilities, advantages and masks are constants without a graph. Values at
//! masked-out tokens, even infinite ones, change neither loss nor gradient.
//!
//! Shape legend: b completions, t tokens of the longest one; `b1` has one value for each completion.

use burn::tensor::activation::sigmoid;
use burn::tensor::{Bool, Tensor};

/// A policy loss. r is the probability ratio π/π_old, Â the advantage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GroupLoss {
    /// −min(r·Â, clip(r, 1 − ε, 1 + ε_high)·Â), averaged over the tokens of each completion and then over completions: Shao et
    /// al. 2024, "DeepSeekMath", equation 3.
    Grpo,
    /// The same, averaged over the tokens of the batch.
    Bnpo,
    /// The same, summed and divided by completions × the largest length: Liu et al. 2025, "Understanding R1-Zero-Like
    /// Training".
    DrGrpo,
    /// The same, averaged over the tokens of the whole update: Yu et al. 2025, "DAPO", equation 8.
    Dapo,
    /// −sg(min(r, ε_high))·Â·log π, averaged as in DAPO: MiniMax 2025, "MiniMax-M1", equation 4; sg has no gradient.
    Cispo,
    /// −4σ(τ(r − 1))/τ·Â, averaged as in GRPO: Gao et al. 2025, "Soft Adaptive Policy Optimization".
    Sapo {
        /// τ for advantages above 0.
        temperature_pos: f64,
        /// τ for others.
        temperature_neg: f64,
    },
    /// −sg(φ(w))·Â·log π with φ(w) = e^λ·w^k·e^(−λw) of the completion's ratio w, averaged as in DAPO.
    Vespo {
        /// (k, λ) for advantages of at least 0.
        pos: (f64, f64),
        /// (k, λ) for others.
        neg: (f64, f64),
    },
    /// GRPO's clipped loss, summed over the tokens of each completion and averaged over completions.
    Luspo,
    /// GRPO's clipped loss of the ratio of whole completions, averaged over completions: Ahmadian et al. 2024, "Back to Basics".
    Rloo,
}

/// Level at which probability ratios are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RatioLevel {
    /// One ratio for each token.
    #[default]
    Token,
    /// One ratio for each completion, the geometric mean of its tokens': Zheng et al. 2025, "Group Sequence Policy
    /// Optimization".
    Sequence,
}

/// A policy loss with its regularization.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupObjective {
    /// The loss.
    pub loss: GroupLoss,
    /// Level of the ratios; [`GroupLoss::Rloo`] has its own, the product of a completion's ratios.
    pub level: RatioLevel,
    /// ε: ratios are clipped at 1 − ε.
    pub epsilon: f64,
    /// ε_high: ratios are clipped at 1 + ε_high. In [`GroupLoss::Cispo`] it is the largest ratio itself.
    pub epsilon_high: f64,
    /// Largest ratio of the branch that is not clipped: INTELLECT-2, 2025.
    pub delta: Option<f64>,
    /// β, the coefficient of the KL divergence from the reference in each token's loss.
    pub beta: f64,
    /// Whether that divergence is multiplied by the ratio, which makes its gradient unbiased: DeepSeek-V3.2, 2025.
    pub corrects_kl: bool,
    /// Completions with a negative advantage are left out if their mean of log π_old − log π is above this: DeepSeek-V3.2, 2025.
    pub off_policy_threshold: Option<f64>,
    /// Coefficient of the mean entropy, which is subtracted from the loss.
    pub entropy_coef: f64,
}

/// The tokens of padded completions.
#[derive(Clone, Debug)]
pub struct CompletionBatch {
    /// log π of each token, `[b, t]`.
    pub logprobs_bt: Tensor<2>,
    /// log π_old, `[b, t]`.
    pub old_logprobs_bt: Tensor<2>,
    /// log π_ref, `[b, t]`, if β is not 0.
    pub ref_logprobs_bt: Option<Tensor<2>>,
    /// Entropy of π at each token, `[b, t]`.
    pub entropies_bt: Tensor<2>,
    /// Â, `[b, 1]`.
    pub advantages_b1: Tensor<2>,
    /// 1 for tokens of the loss, else 0, `[b, t]`.
    pub mask_bt: Tensor<2>,
    /// 1 for those of them that the policy's own term is restricted to, `[b, t]`: Wang et al. 2025, "Beyond the 80/20 Rule".
    pub focus_bt: Option<Tensor<2>>,
}

/// Denominators of a batch's mean, known before its first forward pass. The batch may be split into several
/// [`CompletionBatch`]es, whose losses then add up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupCounts {
    /// Completions of the batch, masked ones included.
    pub rows: usize,
    /// Tokens of the loss in the batch.
    pub tokens: usize,
    /// Those that the policy's term is restricted to.
    pub focus_tokens: usize,
    /// Tokens of the loss in the whole update, divided by its number of optimizer steps: the denominator of DAPO.
    pub tokens_per_step: f64,
    /// Largest number of tokens of a completion.
    pub max_new_tokens: usize,
    /// Batches of the optimizer step, over which losses are averaged; 1 if the batch is the whole step.
    pub batches_per_step: usize,
}

/// The loss of a batch, and the quantities that metrics are made of.
#[derive(Clone, Debug)]
pub struct GroupTerms {
    /// This batch's share of the step's loss, `[1]`.
    pub loss: Tensor<1>,
    /// The loss without the entropy bonus, `[1]`, without a graph.
    pub policy_loss: Tensor<1>,
    /// log π − log π_old of each token, 0 where the mask is, `[b, t]`; without a graph.
    pub log_ratios_bt: Tensor<2>,
    /// Ratios that are compared with the clip range, `[b, t]`, or `[b, 1]` for those of completions; without a graph.
    pub ratios: Tensor<2>,
    /// KL estimate of each token, `[b, t]`, with its correction; without a graph.
    pub kl_bt: Option<Tensor<2>>,
    /// φ of each completion, `[b, 1]`, of [`GroupLoss::Vespo`]; without a graph.
    pub phi_b1: Option<Tensor<2>>,
}

impl GroupLoss {
    /// Whether the loss clips ratios on both sides.
    pub fn clips(self) -> bool {
        match self {
            Self::Grpo | Self::Bnpo | Self::DrGrpo | Self::Dapo | Self::Luspo | Self::Rloo => true,
            Self::Cispo | Self::Sapo { .. } | Self::Vespo { .. } => false,
        }
    }
}

impl GroupObjective {
    /// The loss of a batch.
    pub fn terms(&self, batch: &CompletionBatch, counts: &GroupCounts) -> GroupTerms {
        let mask_bt = &batch.mask_bt;
        let outside_bt = mask_bt.clone().equal_elem(0.0);
        let n_b1 = mask_bt.clone().sum_dim(1).clamp_min(1.0);
        // Masked before anything else is computed, so that no gradient is infinity times zero.
        let logprobs_bt = batch.logprobs_bt.clone().mask_fill(outside_bt.clone(), 0.0);
        let old_bt = batch.old_logprobs_bt.clone().mask_fill(outside_bt.clone(), 0.0);
        let log_ratios_bt = logprobs_bt.clone() - old_bt;
        let ratios = self.log_ratios(log_ratios_bt.clone(), n_b1.clone()).exp();

        // The KL divergence from the reference: k3 of Schulman 2020, "Approximating KL Divergence".
        let reference = batch.ref_logprobs_bt.as_ref().filter(|_| self.beta != 0.0);
        let kl_bt = reference.map(|ref_bt| {
            let ref_bt = ref_bt.clone().mask_fill(outside_bt.clone(), 0.0);
            let d_bt = ref_bt - logprobs_bt.clone();
            let kl_bt = d_bt.clone().exp() - d_bt - 1.0;
            if self.corrects_kl { kl_bt * ratios.clone() } else { kl_bt }
        });

        let phi_b1 = self.phi(&log_ratios_bt, &batch.advantages_b1);
        let ratios = match self.delta.filter(|_| self.loss.clips()) {
            Some(delta) => (ratios.clone(), ratios.clamp_max(delta)),
            None => (ratios.clone(), ratios),
        };
        let policy = self.policy(&ratios, &logprobs_bt, &batch.advantages_b1, phi_b1.as_ref());
        let policy = match self.off_policy_threshold {
            None => policy,
            Some(threshold) => {
                let drift_b1 = (log_ratios_bt.clone().sum_dim(1) / n_b1.clone()).neg();
                policy * kept(&constant(drift_b1), &batch.advantages_b1, threshold)
            }
        };
        let policy = match &batch.focus_bt {
            None => policy,
            Some(focus_bt) => policy * focus_bt.clone(),
        };
        let losses = match &kl_bt {
            None => policy,
            Some(kl_bt) => policy + kl_bt.clone().mul_scalar(self.beta),
        };
        let policy_loss = self.mean(losses, mask_bt, n_b1, counts);
        let loss = match self.entropy_coef {
            0.0 => policy_loss.clone(),
            coef => policy_loss.clone() - entropy_bonus(batch, counts).mul_scalar(coef),
        };
        GroupTerms {
            loss,
            policy_loss: constant(policy_loss),
            log_ratios_bt: constant(log_ratios_bt),
            ratios: constant(ratios.1),
            kl_bt: kl_bt.map(constant),
            phi_b1,
        }
    }

    /// Log-ratios at the level of the loss, `[b, t]` or `[b, 1]`.
    fn log_ratios(&self, log_ratios_bt: Tensor<2>, n_b1: Tensor<2>) -> Tensor<2> {
        match (self.loss, self.level) {
            (GroupLoss::Rloo, _) => log_ratios_bt.sum_dim(1),
            (_, RatioLevel::Token) => log_ratios_bt,
            (_, RatioLevel::Sequence) => log_ratios_bt.sum_dim(1) / n_b1,
        }
    }

    /// The policy's own term, `[b, t]` or `[b, 1]`. `ratios` are as they are, and capped by δ.
    fn policy(
        &self,
        ratios: &(Tensor<2>, Tensor<2>),
        logprobs_bt: &Tensor<2>,
        advantages_b1: &Tensor<2>,
        phi_b1: Option<&Tensor<2>>,
    ) -> Tensor<2> {
        let (ratios, capped) = ratios.clone();
        let advantages_b1 = advantages_b1.clone();
        let gain = match self.loss {
            GroupLoss::Grpo
            | GroupLoss::Bnpo
            | GroupLoss::DrGrpo
            | GroupLoss::Dapo
            | GroupLoss::Luspo
            | GroupLoss::Rloo => {
                let clipped = ratios.clamp(1.0 - self.epsilon, 1.0 + self.epsilon_high);
                (capped * advantages_b1.clone()).min_pair(clipped * advantages_b1)
            }
            GroupLoss::Cispo => {
                let weights = constant(ratios.clamp_max(self.epsilon_high));
                logprobs_bt.clone() * (weights * advantages_b1)
            }
            GroupLoss::Sapo { temperature_pos, temperature_neg } => {
                let is_pos_b1 = advantages_b1.clone().greater_elem(0.0);
                let tau_b1 = choose(is_pos_b1, temperature_pos, temperature_neg, &advantages_b1);
                let soft = sigmoid((ratios - 1.0) * tau_b1.clone()).mul_scalar(4.0) / tau_b1;
                soft * advantages_b1
            }
            GroupLoss::Vespo { .. } => match phi_b1 {
                Some(phi_b1) => logprobs_bt.clone() * (phi_b1.clone() * advantages_b1),
                None => logprobs_bt.clone() * advantages_b1,
            },
        };
        gain.neg()
    }

    /// φ(w) of [`GroupLoss::Vespo`], computed from log w; without a graph.
    fn phi(&self, log_ratios_bt: &Tensor<2>, advantages_b1: &Tensor<2>) -> Option<Tensor<2>> {
        // Bounds of log-ratios, of tokens and of completions.
        const HIGH: f64 = 20.0;
        let GroupLoss::Vespo { pos, neg } = self.loss else { return None };
        let low = 1e-8_f64.ln();
        let log_ratios_bt = constant(log_ratios_bt.clone()).clamp(-HIGH, HIGH);
        let log_w_b1 = log_ratios_bt.sum_dim(1).clamp(low, HIGH);
        let is_pos_b1 = advantages_b1.clone().greater_equal_elem(0.0);
        let k_b1 = choose(is_pos_b1.clone(), pos.0, neg.0, advantages_b1);
        let lambda_b1 = choose(is_pos_b1, pos.1.max(1e-4), neg.1.max(1e-4), advantages_b1);
        let w_b1 = log_w_b1.clone().exp();
        Some((lambda_b1.clone() + k_b1 * log_w_b1 - lambda_b1 * w_b1).exp())
    }

    /// This batch's share of the step's mean.
    fn mean(
        &self,
        losses: Tensor<2>,
        mask_bt: &Tensor<2>,
        n_b1: Tensor<2>,
        counts: &GroupCounts,
    ) -> Tensor<1> {
        let batches = counts.batches_per_step.max(1) as f64;
        let (rows, tokens) = (counts.rows.max(1) as f64, counts.tokens.max(1) as f64);
        // A completion's one loss counts for each of its tokens.
        let masked = |losses: Tensor<2>| losses * mask_bt.clone();
        match self.loss {
            GroupLoss::Rloo => losses.sum().div_scalar(rows * batches),
            GroupLoss::Grpo | GroupLoss::Sapo { .. } => {
                (masked(losses).sum_dim(1) / n_b1).sum().div_scalar(rows * batches)
            }
            GroupLoss::Bnpo => masked(losses).sum().div_scalar(tokens * batches),
            GroupLoss::DrGrpo => {
                let longest = counts.max_new_tokens.max(1) as f64;
                masked(losses).sum().div_scalar(rows * longest * batches)
            }
            GroupLoss::Dapo | GroupLoss::Cispo | GroupLoss::Vespo { .. } => {
                masked(losses).sum().div_scalar(counts.tokens_per_step)
            }
            GroupLoss::Luspo => masked(losses).sum().div_scalar(rows * batches),
        }
    }
}

/// This batch's share of the mean entropy of the tokens that the policy's term acts on.
fn entropy_bonus(batch: &CompletionBatch, counts: &GroupCounts) -> Tensor<1> {
    let mask_bt = batch.mask_bt.clone();
    let (mask_bt, tokens) = match &batch.focus_bt {
        None => (mask_bt, counts.tokens),
        Some(focus_bt) => (mask_bt * focus_bt.clone(), counts.focus_tokens),
    };
    let outside_bt = mask_bt.equal_elem(0.0);
    let entropies_bt = batch.entropies_bt.clone().mask_fill(outside_bt, 0.0);
    entropies_bt.sum().div_scalar((tokens.max(1) * counts.batches_per_step.max(1)) as f64)
}

/// 1 for completions that stay in the loss: those whose advantage is not negative, or whose drift is small; `[b, 1]`.
fn kept(drift_b1: &Tensor<2>, advantages_b1: &Tensor<2>, threshold: f64) -> Tensor<2> {
    let is_close_b1 = drift_b1.clone().lower_equal_elem(threshold);
    is_close_b1.bool_or(advantages_b1.clone().greater_equal_elem(0.0)).float()
}

/// One of two numbers for each completion, `[b, 1]`.
fn choose(is_first_b1: Tensor<2, Bool>, first: f64, second: f64, like_b1: &Tensor<2>) -> Tensor<2> {
    like_b1.zeros_like().add_scalar(second).mask_fill(is_first_b1, first)
}

/// The smallest entropy among the `share` of tokens with the highest one, with linear interpolation between neighbours.
///
/// Returns infinity without any token.
pub fn entropy_threshold(entropies: &[f32], share: f64) -> f32 {
    let mut sorted = entropies.to_vec();
    sorted.sort_by(f32::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f32::INFINITY };
    let place = (1.0 - share).clamp(0.0, 1.0) * last as f64;
    let (below, weight) = (place.floor() as usize, place.fract());
    let (low, high) = (f64::from(sorted[below]), f64::from(sorted[(below + 1).min(last)]));
    (low + weight * (high - low)) as f32
}

/// The tensor without its graph.
fn constant<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.is_autodiff() { x.inner() } else { x }
}
