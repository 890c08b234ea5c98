//! `[dpo]`: preference optimization on pairs, without a reward model. The formulas are in `loss`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostics::Diagnostics;
use crate::pair_keys::PairKeys;
use crate::stage_keys::{Samples, StageKeys};
use crate::train_keys::TrainKeys;

/// Direct preference optimization and its variants: the chosen answer becomes more probable than
/// the rejected one, without a reward model. The targets are the answer's tokens and its end token.
/// `micro_batch` counts pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DpoSection {
    /// Initial weights and data.
    #[serde(flatten)]
    pub input: PairKeys,
    /// Preference loss.
    #[serde(default)]
    pub loss: PreferenceLoss,
    /// Coefficient β of the loss. For `sigmoid`, `hinge` and `ipo`, a larger value keeps the model
    /// closer to the reference; for `simpo` it scales the difference; for `orpo` it weights the
    /// odds-ratio term (λ in the paper). Default: 0.1, or 2 for `simpo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1000.0))]
    pub beta: Option<f64>,
    /// Assumed share of pairs whose labels are swapped (`sigmoid` only). Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 0.5))]
    pub label_smoothing: Option<f64>,
    /// Target margin γ between the answers (`simpo` only), subtracted from β times the difference.
    /// Default: 0.5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub simpo_gamma: Option<f64>,
    /// Limits, optimizer, schedule, validation and checkpoints.
    #[serde(flatten)]
    pub train: TrainKeys,
}

/// Preference loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PreferenceLoss {
    /// DPO: the log-sigmoid of the difference between the implicit rewards of the chosen and the
    /// rejected answer.
    #[default]
    Sigmoid,
    /// The same difference under a hinge loss with margin 1.
    Hinge,
    /// IPO: the squared distance of the same difference, per token, from 1/(2β).
    Ipo,
    /// SimPO: log-probabilities per token with a target margin, without a reference model.
    SimPo,
    /// ORPO: cross-entropy of the chosen answer plus an odds-ratio term, without a reference model.
    Orpo,
}

impl PreferenceLoss {
    /// Name of the loss in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sigmoid => "sigmoid",
            Self::Hinge => "hinge",
            Self::Ipo => "ipo",
            Self::SimPo => "simpo",
            Self::Orpo => "orpo",
        }
    }

    /// Whether the loss compares with a reference model.
    pub fn has_reference(self) -> bool {
        matches!(self, Self::Sigmoid | Self::Hinge | Self::Ipo)
    }
}

impl DpoSection {
    /// `beta`, or the loss's default.
    pub fn beta(&self) -> f64 {
        self.beta.unwrap_or(if self.loss == PreferenceLoss::SimPo { 2.0 } else { 0.1 })
    }

    /// `label_smoothing`, or 0.
    pub fn label_smoothing(&self) -> f64 {
        self.label_smoothing.unwrap_or(0.0)
    }

    /// `simpo_gamma`, or its default.
    pub fn simpo_gamma(&self) -> f64 {
        self.simpo_gamma.unwrap_or(0.5)
    }

    pub(crate) fn stage_keys(&self) -> StageKeys<'_> {
        let samples = Samples::AnswerPairs { overlong: self.input.overlong };
        StageKeys::of_pairs(&self.input, samples, &self.train)
    }

    pub(crate) fn check(&self, path: &str, diagnostics: &mut Diagnostics) {
        self.input.check(path, diagnostics);
        self.train.check(path, diagnostics);
        for (idx, source) in self.input.data.iter().enumerate() {
            if source.columns.as_ref().is_some_and(|columns| columns.margin.is_some()) {
                diagnostics.conflict(
                    &format!("{path}.data[{idx}].columns.margin"),
                    "only [reward] uses margins",
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
            diagnostics.conflict(
                &format!("{path}.{key}"),
                &format!(
                    "only `loss = \"{}\"` uses it, and the loss is `{}`",
                    reader.name(),
                    self.loss.name()
                ),
            );
        }
    }
}
