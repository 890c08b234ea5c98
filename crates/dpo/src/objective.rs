//! The loss of a recipe and the implicit rewards that it defines. `loss` has the formulas and their sources.
//!
//! Shape legend: p pairs.

use burn::tensor::Tensor;
use loss::{DpoLoss, PairLogprobs, SequenceLogprobs, dpo, orpo_odds_ratio, simpo};
use recipe::{DpoSection, PreferenceLoss};
use train::FirstLoss;

/// The loss of a stage, with its coefficients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// DPO, relative to a reference model.
    Dpo {
        /// The function of the difference to the reference.
        loss: DpoLoss,
        /// β.
        beta: f64,
    },
    /// SimPO, without a reference model.
    SimPo {
        /// β.
        beta: f64,
        /// γ.
        gamma: f64,
    },
    /// ORPO, without a reference model.
    Orpo {
        /// λ, which is `beta` in recipes, as in TRL.
        lambda: f64,
    },
}

impl Default for Objective {
    /// The loss of a section without keys.
    fn default() -> Self {
        Self::Dpo { loss: DpoLoss::Sigmoid { label_smoothing: 0.0 }, beta: 0.1 }
    }
}

impl Objective {
    /// The loss of a recipe's section.
    pub fn of(section: &DpoSection) -> Self {
        let beta = section.beta();
        let dpo = |loss| Self::Dpo { loss, beta };
        match section.loss {
            PreferenceLoss::Sigmoid => {
                dpo(DpoLoss::Sigmoid { label_smoothing: section.label_smoothing() })
            }
            PreferenceLoss::Hinge => dpo(DpoLoss::Hinge),
            PreferenceLoss::Ipo => dpo(DpoLoss::Ipo),
            PreferenceLoss::SimPo => Self::SimPo { beta, gamma: section.simpo_gamma() },
            PreferenceLoss::Orpo => Self::Orpo { lambda: beta },
        }
    }

    /// Whether the loss depends on a reference model.
    pub fn has_reference(self) -> bool {
        matches!(self, Self::Dpo { .. })
    }

    /// The loss while the policy equals its reference; unknown for losses without a reference.
    pub fn first_loss(self) -> FirstLoss {
        match self {
            Self::Dpo { loss: DpoLoss::Sigmoid { .. }, .. } => {
                FirstLoss::Near { loss: std::f64::consts::LN_2 }
            }
            Self::Dpo { loss: DpoLoss::Hinge, .. } => FirstLoss::Near { loss: 1.0 },
            Self::Dpo { loss: DpoLoss::Ipo, beta } => {
                FirstLoss::Near { loss: (0.5 / beta).powi(2) }
            }
            Self::SimPo { .. } | Self::Orpo { .. } => FirstLoss::Unknown,
        }
    }

    /// The loss of each pair, `[p]`.
    pub fn losses(self, policy: &PairLogprobs, reference: &PairLogprobs) -> Tensor<1> {
        match self {
            Self::Dpo { loss, beta } => dpo(policy, reference, loss, beta),
            Self::SimPo { beta, gamma } => simpo(policy, beta, gamma),
            // The chosen answer's negative log-likelihood is a mean over tokens, as the odds are: Hong et al. 2024,
            // equation 6.
            Self::Orpo { lambda } => {
                orpo_odds_ratio(policy).mul_scalar(lambda) - policy.chosen.means()
            }
        }
    }

    /// The log-probability of an answer on which the loss depends, `[p]`: a sum or a mean over its tokens.
    pub fn reading(self, answers: &SequenceLogprobs) -> Tensor<1> {
        match self {
            Self::Dpo { loss: DpoLoss::Sigmoid { .. } | DpoLoss::Hinge, .. } => answers.sums(),
            Self::Dpo { loss: DpoLoss::Ipo, .. } | Self::SimPo { .. } | Self::Orpo { .. } => {
                answers.means()
            }
        }
    }

    /// The factor between a log-probability and its implicit reward.
    pub fn beta(self) -> f64 {
        match self {
            Self::Dpo { beta, .. } | Self::SimPo { beta, .. } => beta,
            Self::Orpo { lambda } => lambda,
        }
    }
}
