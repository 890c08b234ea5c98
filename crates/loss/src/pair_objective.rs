//! Preference losses by name, weighted sums of them, and the divergences that they regularize with.
//!
//! Shape legend: p pairs.

use std::f64::consts::LN_2;

use burn::tensor::activation::{log_sigmoid, sigmoid};
use burn::tensor::{Int, Tensor};

use crate::preference::{PairLogprobs, SequenceLogprobs, orpo_odds_ratio, simpo};

/// A loss over the answers of a pair. ρ is log π − log π_ref of an answer, s its score f(ρ) under the objective's
/// [`FDivergence`], z = s⁺ − s⁻; + is the chosen answer, − the rejected one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PairLoss {
    /// −(1 − ε)·log σ(βz) − ε·log σ(−βz): Rafailov et al. 2023, equation 7; with ε above 0,
    /// Mitchell 2023, "A note on DPO with noisy preferences & relationship to IPO".
    Sigmoid {
        /// ε: the share of pairs with swapped answers, 0 for none.
        label_smoothing: f64,
    },
    /// As [`PairLoss::Sigmoid`] without ε, each score divided by the number of the answer's tokens.
    SigmoidNorm,
    /// max(0, 1 − βz): Zhao et al. 2023, "SLiC-HF", normalised as in Liu et al. 2024.
    Hinge,
    /// (z̄ − 1/(2β))² with scores per token: Azar et al. 2023, equation 17, averaged over tokens as its authors advise.
    Ipo,
    /// KL(softmax(βs⁺, βs⁻) ‖ (1 − ε, ε)): Ji et al. 2024, "Towards Efficient Exact Optimization", equation 16.
    ExoPair {
        /// ε, above 0.
        label_smoothing: f64,
    },
    /// (−(1 − ε)·log σ(βz) + ε·log σ(−βz)) / (1 − 2ε): Chowdhury et al. 2024, "Provably Robust DPO".
    Robust {
        /// ε, below 1/2.
        label_smoothing: f64,
    },
    /// −log σ(βz)·(1 − m) + exp(−βz)·m with m = σ(βz/τ): Lu et al. 2024, "Discovering Preference Optimization Algorithms",
    /// equation 5.
    DiscoPop {
        /// τ.
        tau: f64,
    },
    /// −log σ(βρ⁺) − ½·log σ(−βρ⁺) − ½·log σ(−βρ⁻): Chen et al. 2024, "Noise Contrastive Alignment".
    NcaPair,
    /// −log σ(βρ⁺) − log σ(−βρ⁻): Jung et al. 2024, "Binary Classifier Optimization", without its shift.
    BcoPair,
    /// (ρ⁺ − 1/(2β))² + (ρ⁻ + 1/(2β))²: Wu et al. 2024, "Self-Play Preference Optimization", equation 4.7 with hard labels.
    SppoHard,
    /// 1 − σ(βρ⁺) + σ(βρ⁻): D'Oosterlinck et al. 2024, "Anchored Preference Optimization", equation 7.
    ApoZero,
    /// σ(βρ⁺) + 1 − σ(β(ρ⁺ − ρ⁻)): the same, equation 8.
    ApoDown,
    /// The smoothed sigmoid loss of the sorted differences log π⁺ − log π⁻ minus the sorted ones of the reference: Melnyk
    /// et al. 2024, "Distributional Preference Alignment via Optimal Transport". All pairs of a step belong together.
    Aot {
        /// ε.
        label_smoothing: f64,
    },
    /// The same of the sorted ρ⁺ minus the sorted ρ⁻.
    AotUnpaired {
        /// ε.
        label_smoothing: f64,
    },
    /// The cross-entropy of the chosen answers, a mean over the tokens of all of them.
    Sft,
    /// The sigmoid loss of log π⁺ − log π⁻ plus α times [`PairLoss::Sft`]: Xu et al. 2024, "Contrastive Preference
    /// Optimization". No reference.
    Cpo {
        /// ε.
        label_smoothing: f64,
        /// α.
        alpha: f64,
    },
    /// [`simpo`]. No reference.
    SimPo {
        /// γ.
        gamma: f64,
    },
    /// −log π⁺/|y⁺| plus β times [`orpo_odds_ratio`]: Hong et al. 2024, equation 6. No reference.
    Orpo,
}

/// The divergence between policy and reference that a loss regularizes with: Wang et al. 2023, "Beyond Reverse KL". It turns
/// the log-ratio ρ of an answer into its score.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum FDivergence {
    /// s = ρ.
    #[default]
    ReverseKl,
    /// s = 1 − e^(−ρ).
    ForwardKl,
    /// s = log 2 + log σ(ρ).
    JensenShannon,
    /// s = (e^((α − 1)ρ) − 1) / (α − 1); ρ for α = 1.
    Alpha(f64),
}

/// The largest exponent of an α-divergence, so that scores stay finite.
const MAX_EXPONENT: f64 = 80.0;

impl FDivergence {
    /// Scores of log-ratios, `[p]`.
    fn scores(self, ratios_p: Tensor<1>) -> Tensor<1> {
        match self {
            Self::ReverseKl => ratios_p,
            Self::ForwardKl => ratios_p.neg().exp().neg().add_scalar(1.0),
            Self::JensenShannon => log_sigmoid(ratios_p).add_scalar(LN_2),
            Self::Alpha(alpha) if (alpha - 1.0).abs() < 1e-6 => ratios_p,
            Self::Alpha(alpha) => {
                let exponents_p = ratios_p.mul_scalar(alpha - 1.0).clamp_max(MAX_EXPONENT);
                exponents_p.exp().sub_scalar(1.0).div_scalar(alpha - 1.0)
            }
        }
    }
}

impl PairLoss {
    /// Whether the loss compares with a reference model.
    pub fn has_reference(self) -> bool {
        !matches!(self, Self::Sft | Self::Cpo { .. } | Self::SimPo { .. } | Self::Orpo)
    }

    /// Whether the loss reads log-probabilities per token.
    pub fn reads_means(self) -> bool {
        matches!(self, Self::Ipo | Self::SigmoidNorm | Self::SimPo { .. } | Self::Orpo)
    }

    /// Whether the loss of a pair depends on the other pairs of the step.
    pub fn compares_pairs(self) -> bool {
        matches!(self, Self::Aot { .. } | Self::AotUnpaired { .. })
    }

    /// The loss of a policy that equals its reference; `None` where it depends on the policy.
    fn at_reference(self, beta: f64) -> Option<f64> {
        Some(match self {
            Self::Sigmoid { .. }
            | Self::SigmoidNorm
            | Self::Robust { .. }
            | Self::Aot { .. }
            | Self::AotUnpaired { .. } => LN_2,
            Self::Hinge | Self::ApoZero | Self::ApoDown => 1.0,
            Self::Ipo => (0.5 / beta).powi(2),
            Self::ExoPair { label_smoothing } => {
                -LN_2 - 0.5 * ((1.0 - label_smoothing).ln() + label_smoothing.ln())
            }
            Self::DiscoPop { .. } => 0.5 * LN_2 + 0.5,
            Self::NcaPair | Self::BcoPair => 2.0 * LN_2,
            Self::SppoHard => 2.0 * (0.5 / beta).powi(2),
            Self::Sft | Self::Cpo { .. } | Self::SimPo { .. } | Self::Orpo => return None,
        })
    }
}

/// A weighted sum of losses with their common coefficients.
#[derive(Clone, Debug, PartialEq)]
pub struct PairObjective {
    /// Losses and their weights.
    pub terms: Vec<(PairLoss, f64)>,
    /// β.
    pub beta: f64,
    /// Divergence from the reference.
    pub divergence: FDivergence,
}

/// Numbers of a step's pairs besides their log-probabilities.
#[derive(Clone, Debug)]
pub struct PairContext {
    /// Mean number of tokens of the chosen answers of the whole step, from which [`PairLoss::Sft`] gets its denominator.
    pub mean_chosen_tokens: f64,
    /// Factor of each pair's loss, `[p]`; `None` for 1.
    pub weights_p: Option<Tensor<1>>,
}

impl PairObjective {
    /// A single loss under the reverse KL divergence.
    pub fn one(loss: PairLoss, beta: f64) -> Self {
        Self { terms: vec![(loss, 1.0)], beta, divergence: FDivergence::ReverseKl }
    }

    /// Whether some loss compares with a reference model.
    pub fn has_reference(&self) -> bool {
        self.terms.iter().any(|(loss, _)| loss.has_reference())
    }

    /// The loss of a policy that equals its reference; `None` where it depends on the policy.
    pub fn at_reference(&self) -> Option<f64> {
        let terms = self
            .terms
            .iter()
            .map(|(loss, weight)| loss.at_reference(self.beta).map(|loss| weight * loss));
        terms.sum()
    }

    /// The loss of each pair, `[p]`, of which a step's loss is the mean. With [`PairLoss::Aot`], entry i is the i-th in sorted
    /// order, not that of pair i.
    pub fn losses(
        &self,
        policy: &PairLogprobs,
        reference: &PairLogprobs,
        context: &PairContext,
    ) -> Tensor<1> {
        let one = |(loss, weight): &(PairLoss, f64)| {
            let losses_p = self.losses_of(*loss, policy, reference, context);
            if *weight == 1.0 { losses_p } else { losses_p.mul_scalar(*weight) }
        };
        let mut terms = self.terms.iter().map(one);
        let first_p = terms.next().unwrap_or_else(|| policy.chosen.sums().mul_scalar(0.0));
        let sum_p = terms.fold(first_p, |sum_p, term_p| sum_p + term_p);
        match &context.weights_p {
            Some(weights_p) => sum_p * weights_p.clone(),
            None => sum_p,
        }
    }

    fn losses_of(
        &self,
        loss: PairLoss,
        policy: &PairLogprobs,
        reference: &PairLogprobs,
        context: &PairContext,
    ) -> Tensor<1> {
        let beta = self.beta;
        let ratios = |policy: &SequenceLogprobs, reference: &SequenceLogprobs| {
            policy.sums() - reference.sums()
        };
        let chosen_p = || ratios(&policy.chosen, &reference.chosen);
        let rejected_p = || ratios(&policy.rejected, &reference.rejected);
        let scores = || (self.divergence.scores(chosen_p()), self.divergence.scores(rejected_p()));
        // βz, the scaled difference between the scores.
        let scaled = || {
            let (chosen_p, rejected_p) = scores();
            (chosen_p - rejected_p).mul_scalar(beta)
        };
        let per_token = || {
            let (chosen_p, rejected_p) = scores();
            policy.chosen.per_token(chosen_p) - policy.rejected.per_token(rejected_p)
        };
        match loss {
            PairLoss::Sigmoid { label_smoothing } => smoothed(scaled(), label_smoothing),
            PairLoss::SigmoidNorm => log_sigmoid(per_token().mul_scalar(beta)).neg(),
            PairLoss::Hinge => scaled().neg().add_scalar(1.0).clamp_min(0.0),
            PairLoss::Ipo => per_token().sub_scalar(0.5 / beta).square(),
            PairLoss::ExoPair { label_smoothing } => exo_pair(scaled(), label_smoothing),
            PairLoss::Robust { label_smoothing } => {
                let z_p = scaled();
                let clean_p = log_sigmoid(z_p.clone()).mul_scalar(1.0 - label_smoothing);
                let swapped_p = log_sigmoid(z_p.neg()).mul_scalar(label_smoothing);
                (swapped_p - clean_p).div_scalar(1.0 - 2.0 * label_smoothing)
            }
            PairLoss::DiscoPop { tau } => {
                let z_p = scaled();
                let mix_p = sigmoid(z_p.clone().div_scalar(tau));
                let logistic_p = log_sigmoid(z_p.clone()).neg();
                logistic_p * mix_p.clone().neg().add_scalar(1.0) + z_p.neg().exp() * mix_p
            }
            PairLoss::NcaPair => {
                let (chosen_p, rejected_p) =
                    (chosen_p().mul_scalar(beta), rejected_p().mul_scalar(beta));
                let down_p = log_sigmoid(chosen_p.clone().neg()) + log_sigmoid(rejected_p.neg());
                (log_sigmoid(chosen_p) + down_p.mul_scalar(0.5)).neg()
            }
            PairLoss::BcoPair => {
                let chosen_p = log_sigmoid(chosen_p().mul_scalar(beta));
                (chosen_p + log_sigmoid(rejected_p().mul_scalar(-beta))).neg()
            }
            PairLoss::SppoHard => {
                let half = 0.5 / beta;
                chosen_p().sub_scalar(half).square() + rejected_p().add_scalar(half).square()
            }
            PairLoss::ApoZero => {
                let chosen_p = sigmoid(chosen_p().mul_scalar(beta));
                chosen_p.neg().add_scalar(1.0) + sigmoid(rejected_p().mul_scalar(beta))
            }
            PairLoss::ApoDown => {
                let difference_p = (chosen_p() - rejected_p()).mul_scalar(beta);
                let chosen_p = sigmoid(chosen_p().mul_scalar(beta));
                chosen_p + sigmoid(difference_p).neg().add_scalar(1.0)
            }
            PairLoss::Aot { label_smoothing } => {
                let policy_p = policy.chosen.sums() - policy.rejected.sums();
                let reference_p = reference.chosen.sums() - reference.rejected.sums();
                let difference_p = sorted(policy_p) - sorted(reference_p);
                smoothed(difference_p.mul_scalar(beta), label_smoothing)
            }
            PairLoss::AotUnpaired { label_smoothing } => {
                let difference_p = sorted(chosen_p()) - sorted(rejected_p());
                smoothed(difference_p.mul_scalar(beta), label_smoothing)
            }
            PairLoss::Sft => cross_entropy(policy, context),
            PairLoss::Cpo { label_smoothing, alpha } => {
                let difference_p = policy.chosen.sums() - policy.rejected.sums();
                let preference_p = smoothed(difference_p.mul_scalar(beta), label_smoothing);
                preference_p + cross_entropy(policy, context).mul_scalar(alpha)
            }
            PairLoss::SimPo { gamma } => simpo(policy, beta, gamma),
            PairLoss::Orpo => orpo_odds_ratio(policy).mul_scalar(beta) - policy.chosen.means(),
        }
    }
}

/// −(1 − ε)·log σ(z) − ε·log σ(−z).
fn smoothed(z_p: Tensor<1>, label_smoothing: f64) -> Tensor<1> {
    if label_smoothing == 0.0 {
        return log_sigmoid(z_p).neg();
    }
    let right_p = log_sigmoid(z_p.clone()).mul_scalar(1.0 - label_smoothing);
    (right_p + log_sigmoid(z_p.neg()).mul_scalar(label_smoothing)).neg()
}

/// σ(z)·(log σ(z) − log(1 − ε)) + σ(−z)·(log σ(−z) − log ε).
fn exo_pair(z_p: Tensor<1>, label_smoothing: f64) -> Tensor<1> {
    let side =
        |z_p: Tensor<1>, share: f64| sigmoid(z_p.clone()) * log_sigmoid(z_p).sub_scalar(share.ln());
    side(z_p.clone(), 1.0 - label_smoothing) + side(z_p.neg(), label_smoothing)
}

/// The values in ascending order. Gradients reach the values wherever they were.
fn sorted(x_p: Tensor<1>) -> Tensor<1> {
    let values = x_p.clone().into_data();
    let values: Vec<f32> = values.iter::<f32>().collect();
    let mut order: Vec<i32> = (0..values.len() as i32).collect();
    let value = |at: &i32| values.get(*at as usize).copied().unwrap_or_default();
    order.sort_by(|a, b| value(a).total_cmp(&value(b)));
    let device = x_p.device().inner();
    x_p.select(0, Tensor::<1, Int>::from_data(order.as_slice(), &device))
}

/// The negated sum of each chosen answer's log-probabilities, divided so that the mean over the step's pairs is the mean over
/// the tokens of all chosen answers.
fn cross_entropy(policy: &PairLogprobs, context: &PairContext) -> Tensor<1> {
    policy.chosen.unweighted_sums().div_scalar(-context.mean_chosen_tokens.max(1.0))
}
