//! The loss of a recipe. `loss` has the formulas and their sources.
//!
//! Shape legend: p pairs.

use burn::tensor::Tensor;
use loss::{FDivergence, PairContext, PairLogprobs, PairLoss, PairObjective, SequenceLogprobs};
use recipe::{DpoSection, PreferenceLoss};
use train::FirstLoss;

use crate::logprobs::{PolicyLogprobs, Reading};

/// The loss of a stage, with its coefficients.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    pairs: PairObjective,
    use_weighting: bool,
    ld_alpha: Option<f64>,
}

impl Default for Objective {
    /// The loss of a section without keys.
    fn default() -> Self {
        PairObjective::one(PairLoss::Sigmoid { label_smoothing: 0.0 }, 0.1).into()
    }
}

impl From<PairObjective> for Objective {
    fn from(pairs: PairObjective) -> Self {
        Self { pairs, use_weighting: false, ld_alpha: None }
    }
}

impl Objective {
    /// The loss of a recipe's section.
    pub fn of(section: &DpoSection) -> Self {
        let terms =
            section.losses().into_iter().map(|(loss, weight)| (pair_loss(loss, section), weight));
        let divergence = match section.f_divergence.unwrap_or_default() {
            recipe::FDivergence::ReverseKl => FDivergence::ReverseKl,
            recipe::FDivergence::ForwardKl => FDivergence::ForwardKl,
            recipe::FDivergence::JsDivergence => FDivergence::JensenShannon,
            recipe::FDivergence::AlphaDivergence => FDivergence::Alpha(section.f_alpha()),
        };
        let pairs = PairObjective { terms: terms.collect(), beta: section.beta(), divergence };
        Self { pairs, use_weighting: section.use_weighting, ld_alpha: section.ld_alpha }
    }

    /// The weighted losses.
    pub fn pairs(&self) -> &PairObjective {
        &self.pairs
    }

    /// Whether the loss depends on a reference model.
    pub fn has_reference(&self) -> bool {
        self.pairs.has_reference()
    }

    /// The loss while the policy equals its reference; unknown for losses without a reference.
    pub fn first_loss(&self) -> FirstLoss {
        match self.pairs.at_reference().filter(|_| !self.use_weighting) {
            Some(loss) => FirstLoss::Near { loss },
            None => FirstLoss::Unknown,
        }
    }

    /// The loss of each pair, `[p]`. `mean_chosen_tokens` is the mean number of tokens of the chosen answers of the whole
    /// step or evaluation.
    pub fn losses(
        &self,
        policy: &PolicyLogprobs,
        reference: &PairLogprobs,
        mean_chosen_tokens: f64,
    ) -> Tensor<1> {
        let weights_p = policy.weights_p.clone().filter(|_| self.use_weighting);
        self.pairs.losses(&policy.pairs, reference, &PairContext { mean_chosen_tokens, weights_p })
    }

    /// How the log-probabilities of the policy are added up.
    pub fn logprobs(&self) -> Reading {
        Reading { ld_alpha: self.ld_alpha, use_weighting: self.use_weighting }
    }

    /// The log-probability of an answer on which the loss depends, `[p]`: a sum or a mean over its tokens.
    pub fn reading(&self, answers: &SequenceLogprobs) -> Tensor<1> {
        if self.pairs.terms.iter().all(|(loss, _)| loss.reads_means()) {
            answers.means()
        } else {
            answers.sums()
        }
    }

    /// The factor between a log-probability and its implicit reward.
    pub fn beta(&self) -> f64 {
        self.pairs.beta
    }
}

/// A named loss with the coefficients of its section.
fn pair_loss(loss: PreferenceLoss, section: &DpoSection) -> PairLoss {
    let label_smoothing = section.label_smoothing();
    match loss {
        PreferenceLoss::Sigmoid => PairLoss::Sigmoid { label_smoothing },
        PreferenceLoss::SigmoidNorm => PairLoss::SigmoidNorm,
        PreferenceLoss::Hinge => PairLoss::Hinge,
        PreferenceLoss::Ipo => PairLoss::Ipo,
        PreferenceLoss::ExoPair => PairLoss::ExoPair { label_smoothing },
        PreferenceLoss::NcaPair => PairLoss::NcaPair,
        PreferenceLoss::Robust => PairLoss::Robust { label_smoothing },
        PreferenceLoss::BcoPair => PairLoss::BcoPair,
        PreferenceLoss::SppoHard => PairLoss::SppoHard,
        PreferenceLoss::Aot => PairLoss::Aot { label_smoothing },
        PreferenceLoss::AotUnpaired => PairLoss::AotUnpaired { label_smoothing },
        PreferenceLoss::ApoZero => PairLoss::ApoZero,
        PreferenceLoss::ApoDown => PairLoss::ApoDown,
        PreferenceLoss::DiscoPop => PairLoss::DiscoPop { tau: section.discopop_tau() },
        PreferenceLoss::Sft => PairLoss::Sft,
        PreferenceLoss::Cpo => PairLoss::Cpo { label_smoothing, alpha: section.cpo_alpha() },
        PreferenceLoss::SimPo => PairLoss::SimPo { gamma: section.simpo_gamma() },
        PreferenceLoss::Orpo => PairLoss::Orpo,
    }
}
