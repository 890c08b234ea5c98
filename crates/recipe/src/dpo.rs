//! `[dpo]`: learn which of two answers to give, from the pairs themselves. The formulas are `loss`'s.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Stage;
use crate::pair_keys::PairKeys;
use crate::problems::Problems;
use crate::train_keys::TrainKeys;

/// Learn which of two answers to give, without a reward model: the chosen answer becomes more
/// probable than the rejected one. Targets are the answer's tokens and its end token. Here
/// `micro_batch` counts pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DpoSection {
    /// Where the stage starts and which pairs it reads.
    #[serde(flatten)]
    pub input: PairKeys,
    /// How the two answers are compared.
    #[serde(default)]
    pub loss: PreferenceLoss,
    /// The loss's coefficient. For `sigmoid`, `hinge` and `ipo` larger stays nearer to the
    /// reference; for `simpo` it scales the difference; for `orpo` it is the weight of the odds
    /// ratio beside the answer's own loss, λ in its paper. Left out, 0.1, and 2 for `simpo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1000.0))]
    pub beta: Option<f64>,
    /// The share of pairs that are taken to have their answers swapped (`sigmoid` only). Left out,
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 0.5))]
    pub label_smoothing: Option<f64>,
    /// By how much the chosen answer must be ahead (`simpo` only): γ in its paper, taken from β
    /// times the difference. Left out, 0.5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub simpo_gamma: Option<f64>,
    /// How it trains.
    #[serde(flatten)]
    pub train: TrainKeys,
}

/// How the two answers of a pair are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PreferenceLoss {
    /// Direct preference optimization: the log-sigmoid of how much more the chosen answer gained on
    /// the starting weights than the rejected one.
    #[default]
    Sigmoid,
    /// The same difference under a hinge, which is content once it reaches 1.
    Hinge,
    /// The same difference, a token, drawn to 1/(2β): it stops where enough is gained.
    Ipo,
    /// Log-probabilities a token, with a margin and without reference.
    SimPo,
    /// The chosen answer's own loss, and the odds of both answers; without reference.
    Orpo,
}

impl PreferenceLoss {
    /// As the recipe writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sigmoid => "sigmoid",
            Self::Hinge => "hinge",
            Self::Ipo => "ipo",
            Self::SimPo => "simpo",
            Self::Orpo => "orpo",
        }
    }

    /// Whether it compares with what the starting weights say.
    pub fn has_reference(self) -> bool {
        matches!(self, Self::Sigmoid | Self::Hinge | Self::Ipo)
    }
}

impl DpoSection {
    pub(crate) const PATH: &'static str = "dpo";

    /// `beta`, or the loss's own.
    pub fn beta(&self) -> f64 {
        self.beta.unwrap_or(if self.loss == PreferenceLoss::SimPo { 2.0 } else { 0.1 })
    }

    /// `label_smoothing`, or none.
    pub fn label_smoothing(&self) -> f64 {
        self.label_smoothing.unwrap_or(0.0)
    }

    /// `simpo_gamma`, or the usual one.
    pub fn simpo_gamma(&self) -> f64 {
        self.simpo_gamma.unwrap_or(0.5)
    }

    pub(crate) fn stage(&self) -> Stage<'_> {
        Stage::of_pairs(Self::PATH, &self.input, &self.train)
    }

    pub(crate) fn check(&self, problems: &mut Problems) {
        self.input.check(Self::PATH, problems);
        self.train.check(Self::PATH, problems);
        for (idx, source) in self.input.data.iter().enumerate() {
            if source.columns.as_ref().is_some_and(|columns| columns.margin.is_some()) {
                problems.conflict(
                    &format!("{}.data[{idx}].columns.margin", Self::PATH),
                    "only [reward] reads it",
                );
            }
        }
        let keys = [
            ("label_smoothing", self.label_smoothing.is_some(), PreferenceLoss::Sigmoid),
            ("simpo_gamma", self.simpo_gamma.is_some(), PreferenceLoss::SimPo),
        ];
        for (key, _, reader) in
            keys.into_iter().filter(|(_, is_set, reader)| *is_set && *reader != self.loss)
        {
            problems.conflict(
                &format!("{}.{key}", Self::PATH),
                &format!(
                    "only `loss = \"{}\"` reads it, and this one is `{}`",
                    reader.name(),
                    self.loss.name()
                ),
            );
        }
    }
}
