//! What is asked of a pair: the named losses of the recipe, and the rewards that they imply.
//!
//! The formulas and their sources stand in `loss`; this says which of them a recipe asks for, and what it reads of an
//! answer.
//!
//! Shape legend: p pairs.

use burn::tensor::Tensor;
use loss::{DpoLoss, PairLogprobs, SequenceLogprobs, dpo, orpo_odds_ratio, simpo};
use recipe::{DpoSection, PreferenceLoss};
use train::FirstLoss;

/// The loss of a stage, with its coefficients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// Against a reference.
    Dpo {
        /// How the difference to the reference is judged.
        loss: DpoLoss,
        /// β.
        beta: f64,
    },
    /// SimPO, without reference.
    SimPo {
        /// β.
        beta: f64,
        /// γ.
        gamma: f64,
    },
    /// ORPO, without reference.
    Orpo {
        /// λ, which recipes call `beta`, as TRL does.
        lambda: f64,
    },
}

impl Default for Objective {
    /// That of a section without keys.
    fn default() -> Self {
        Self::Dpo { loss: DpoLoss::Sigmoid { label_smoothing: 0.0 }, beta: 0.1 }
    }
}

impl Objective {
    /// That of a recipe's section.
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

    /// Whether the reference is read.
    pub fn has_reference(self) -> bool {
        matches!(self, Self::Dpo { .. })
    }

    /// The loss of a policy that is still its reference; nothing is known of losses without one.
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

    /// One loss a pair, `[p]`.
    pub fn losses(self, policy: &PairLogprobs, reference: &PairLogprobs) -> Tensor<1> {
        match self {
            Self::Dpo { loss, beta } => dpo(policy, reference, loss, beta),
            Self::SimPo { beta, gamma } => simpo(policy, beta, gamma),
            // The chosen answer's own loss is that of a token, as the odds are: Hong et al. 2024, equation 6.
            Self::Orpo { lambda } => {
                orpo_odds_ratio(policy).mul_scalar(lambda) - policy.chosen.means()
            }
        }
    }

    /// What the loss reads of an answer, `[p]`: its log-probability, or that of a token of it.
    pub fn reading(self, answers: &SequenceLogprobs) -> Tensor<1> {
        match self {
            Self::Dpo { loss: DpoLoss::Sigmoid { .. } | DpoLoss::Hinge, .. } => answers.sums(),
            Self::Dpo { loss: DpoLoss::Ipo, .. } | Self::SimPo { .. } | Self::Orpo { .. } => {
                answers.means()
            }
        }
    }

    /// What a reading is multiplied by to be a reward.
    pub fn beta(self) -> f64 {
        match self {
            Self::Dpo { beta, .. } | Self::SimPo { beta, .. } => beta,
            Self::Orpo { lambda } => lambda,
        }
    }
}
