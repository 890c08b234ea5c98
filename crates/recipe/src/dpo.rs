//! `[dpo]`: preference optimization on pairs, without a reward model. The formulas are in `loss`.

use std::borrow::Cow;

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
    /// Preference loss, or a list of losses whose weighted sum is minimized: `["sigmoid", "sft"]`.
    /// `cpo`, `simpo` and `orpo` stand alone.
    #[serde(default)]
    pub loss: Losses,
    /// Weights of a list of losses, in its order. Default: 1 for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), inner(range(min = -1000.0, max = 1000.0)))]
    pub loss_weights: Vec<f64>,
    /// Coefficient β of the loss. For losses with a reference model, a larger value keeps the model
    /// closer to it; for `cpo` and `simpo` it scales the difference; for `orpo` it weights the
    /// odds-ratio term (λ in the paper). Default: 0.1, or 2 for `simpo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1000.0))]
    pub beta: Option<f64>,
    /// Assumed share of pairs whose labels are swapped (`sigmoid`, `exo_pair`, `robust`, `aot`,
    /// `aot_unpaired` and `cpo`). Default: 0; `exo_pair` needs a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 0.5))]
    pub label_smoothing: Option<f64>,
    /// Target margin γ between the answers (`simpo` only), subtracted from β times the difference.
    /// Default: 0.5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub simpo_gamma: Option<f64>,
    /// Weight α of the chosen answers' cross-entropy (`cpo` only). Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub cpo_alpha: Option<f64>,
    /// Temperature τ of the switch between the two parts of the loss (`discopop` only). Default:
    /// 0.05.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1e-4, max = 1000.0))]
    pub discopop_tau: Option<f64>,
    /// Divergence from the reference model that the loss regularizes with (`sigmoid`,
    /// `sigmoid_norm`, `hinge`, `ipo`, `exo_pair`, `robust` and `discopop`). Default: `reverse_kl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub f_divergence: Option<FDivergence>,
    /// Coefficient α of `f_divergence = "alpha_divergence"`. Default: 0.5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -100.0, max = 100.0))]
    pub f_alpha: Option<f64>,
    /// Weight of an answer's tokens beyond the length of the shorter answer of the pair (LD-DPO), for
    /// losses with a reference model. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub ld_alpha: Option<f64>,
    /// Whether each pair is weighted by the policy's probability of its answers (WPO), for losses
    /// with a reference model.
    #[serde(default)]
    pub use_weighting: bool,
    /// Limits, optimizer, schedule, validation and checkpoints.
    #[serde(flatten)]
    pub train: TrainKeys,
}

/// One loss or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Losses {
    /// One loss.
    One(PreferenceLoss),
    /// A weighted sum.
    Several(Vec<PreferenceLoss>),
}

impl Default for Losses {
    fn default() -> Self {
        Self::One(PreferenceLoss::default())
    }
}

impl Losses {
    /// The losses in order.
    pub fn list(&self) -> &[PreferenceLoss] {
        match self {
            Self::One(loss) => std::slice::from_ref(loss),
            Self::Several(losses) => losses,
        }
    }
}

impl JsonSchema for Losses {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Losses".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let loss = generator.subschema_for::<PreferenceLoss>();
        schemars::json_schema!({
            "anyOf": [loss, { "type": "array", "items": loss, "minItems": 1, "maxItems": 100 }]
        })
    }
}

/// Preference loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PreferenceLoss {
    /// DPO: the log-sigmoid of the difference between the implicit rewards of the chosen and the
    /// rejected answer.
    #[default]
    Sigmoid,
    /// The same with implicit rewards per token.
    SigmoidNorm,
    /// The difference under a hinge loss with margin 1.
    Hinge,
    /// IPO: the squared distance of the difference, per token, from 1/(2β).
    Ipo,
    /// EXO: the divergence of the policy's preference from the labels'.
    ExoPair,
    /// NCA: the chosen answer's reward rises, those of both answers are kept near 0.
    NcaPair,
    /// Sigmoid, corrected for labels that are swapped with a known probability.
    Robust,
    /// BCO on pairs: a classifier of single answers.
    BcoPair,
    /// SPPO with hard labels: squared distances of the two log-ratios from ±1/(2β).
    SppoHard,
    /// AOT on pairs: the sorted differences of a step against the reference's.
    Aot,
    /// AOT on unpaired answers: the sorted rewards of chosen answers against those of rejected ones.
    AotUnpaired,
    /// APO-zero, for chosen answers that are better than the model's.
    ApoZero,
    /// APO-down, for chosen answers that are worse than the model's.
    ApoDown,
    /// DiscoPOP: a mixture of the logistic and the exponential loss.
    #[serde(rename = "discopop")]
    DiscoPop,
    /// Cross-entropy of the chosen answers.
    Sft,
    /// CPO: the sigmoid loss without a reference model, plus the chosen answers' cross-entropy.
    Cpo,
    /// SimPO: log-probabilities per token with a target margin, without a reference model.
    #[serde(rename = "simpo")]
    SimPo,
    /// ORPO: cross-entropy of the chosen answer plus an odds-ratio term, without a reference model.
    Orpo,
}

/// Divergence between policy and reference model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FDivergence {
    /// KL(policy ‖ reference), as in DPO.
    #[default]
    ReverseKl,
    /// KL(reference ‖ policy).
    ForwardKl,
    /// Jensen–Shannon.
    JsDivergence,
    /// The α-divergence with `f_alpha`.
    AlphaDivergence,
}

impl PreferenceLoss {
    /// Name of the loss in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sigmoid => "sigmoid",
            Self::SigmoidNorm => "sigmoid_norm",
            Self::Hinge => "hinge",
            Self::Ipo => "ipo",
            Self::ExoPair => "exo_pair",
            Self::NcaPair => "nca_pair",
            Self::Robust => "robust",
            Self::BcoPair => "bco_pair",
            Self::SppoHard => "sppo_hard",
            Self::Aot => "aot",
            Self::AotUnpaired => "aot_unpaired",
            Self::ApoZero => "apo_zero",
            Self::ApoDown => "apo_down",
            Self::DiscoPop => "discopop",
            Self::Sft => "sft",
            Self::Cpo => "cpo",
            Self::SimPo => "simpo",
            Self::Orpo => "orpo",
        }
    }

    /// Whether the loss compares with a reference model.
    pub fn has_reference(self) -> bool {
        !matches!(self, Self::Sft | Self::Cpo | Self::SimPo | Self::Orpo)
    }

    /// Whether the loss of a pair depends on the other pairs of its step.
    pub fn compares_pairs(self) -> bool {
        matches!(self, Self::Aot | Self::AotUnpaired)
    }

    fn has_label_smoothing(self) -> bool {
        matches!(
            self,
            Self::Sigmoid
                | Self::ExoPair
                | Self::Robust
                | Self::Aot
                | Self::AotUnpaired
                | Self::Cpo
        )
    }

    fn has_f_divergence(self) -> bool {
        matches!(
            self,
            Self::Sigmoid
                | Self::SigmoidNorm
                | Self::Hinge
                | Self::Ipo
                | Self::ExoPair
                | Self::Robust
                | Self::DiscoPop
                | Self::Sft
        )
    }

    fn is_alone(self) -> bool {
        matches!(self, Self::Cpo | Self::SimPo | Self::Orpo)
    }
}

impl DpoSection {
    /// The losses with their weights.
    pub fn losses(&self) -> Vec<(PreferenceLoss, f64)> {
        let weights = self.loss_weights.iter().copied().chain(std::iter::repeat(1.0));
        self.loss.list().iter().copied().zip(weights).collect()
    }

    /// Whether some loss compares with a reference model.
    pub fn has_reference(&self) -> bool {
        self.loss.list().iter().any(|loss| loss.has_reference())
    }

    /// Whether some loss compares the pairs of a step.
    pub fn compares_pairs(&self) -> bool {
        self.loss.list().iter().any(|loss| loss.compares_pairs())
    }

    /// `beta`, or the loss's default.
    pub fn beta(&self) -> f64 {
        let is_simpo = self.loss.list() == [PreferenceLoss::SimPo];
        self.beta.unwrap_or(if is_simpo { 2.0 } else { 0.1 })
    }

    /// `label_smoothing`, or 0.
    pub fn label_smoothing(&self) -> f64 {
        self.label_smoothing.unwrap_or(0.0)
    }

    /// `simpo_gamma`, or its default.
    pub fn simpo_gamma(&self) -> f64 {
        self.simpo_gamma.unwrap_or(0.5)
    }

    /// `cpo_alpha`, or its default.
    pub fn cpo_alpha(&self) -> f64 {
        self.cpo_alpha.unwrap_or(1.0)
    }

    /// `discopop_tau`, or its default.
    pub fn discopop_tau(&self) -> f64 {
        self.discopop_tau.unwrap_or(0.05)
    }

    /// `f_alpha`, or its default.
    pub fn f_alpha(&self) -> f64 {
        self.f_alpha.unwrap_or(0.5)
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
        self.check_list(path, diagnostics);
        self.check_coefficients(path, diagnostics);
        if let Some(micro_batch) = self.train.micro_batch.filter(|_| self.compares_pairs())
            && micro_batch < self.input.pairs_per_step
        {
            diagnostics.value(
                &format!("{path}.micro_batch"),
                &format!(
                    "must be `pairs_per_step` ({}) for a loss that sorts the pairs of a step",
                    self.input.pairs_per_step
                ),
                micro_batch,
            );
        }
    }

    /// Checks the list of losses and its weights.
    fn check_list(&self, path: &str, diagnostics: &mut Diagnostics) {
        let losses = self.loss.list();
        for (idx, loss) in losses.iter().enumerate() {
            let path = format!("{path}.loss[{idx}]");
            if losses.len() > 1 && loss.is_alone() {
                diagnostics.value(&path, "must be the only loss", loss.name());
            }
            if losses.get(..idx).is_some_and(|earlier| earlier.contains(loss)) {
                diagnostics.value(&path, "must not be repeated", loss.name());
            }
        }
        if !self.loss_weights.is_empty() && self.loss_weights.len() != losses.len() {
            let n = losses.len();
            let rule = format!("must have one weight for each loss ({n})");
            diagnostics.value(&format!("{path}.loss_weights"), &rule, self.loss_weights.len());
        }
    }

    /// Checks that every coefficient has a loss that uses it.
    fn check_coefficients(&self, path: &str, diagnostics: &mut Diagnostics) {
        let losses = self.loss.list();
        let is = |wanted: PreferenceLoss| move |loss: PreferenceLoss| loss == wanted;
        let has = |holds: &dyn Fn(PreferenceLoss) -> bool| losses.iter().any(|loss| holds(*loss));
        let users = |holds: &dyn Fn(PreferenceLoss) -> bool| -> String {
            let named = PreferenceLoss::ALL.into_iter().filter(|loss| holds(*loss));
            named.map(|loss| format!("`{}`", loss.name())).collect::<Vec<_>>().join(", ")
        };
        let smoothing: &dyn Fn(PreferenceLoss) -> bool = &PreferenceLoss::has_label_smoothing;
        let reference: &dyn Fn(PreferenceLoss) -> bool = &PreferenceLoss::has_reference;
        let keys: [(&str, bool, &dyn Fn(PreferenceLoss) -> bool); 6] = [
            ("label_smoothing", self.label_smoothing.is_some(), smoothing),
            ("simpo_gamma", self.simpo_gamma.is_some(), &is(PreferenceLoss::SimPo)),
            ("cpo_alpha", self.cpo_alpha.is_some(), &is(PreferenceLoss::Cpo)),
            ("discopop_tau", self.discopop_tau.is_some(), &is(PreferenceLoss::DiscoPop)),
            ("ld_alpha", self.ld_alpha.is_some(), reference),
            ("use_weighting", self.use_weighting, reference),
        ];
        let listed: Vec<String> = losses.iter().map(|loss| format!("`{}`", loss.name())).collect();
        let listed = listed.join(", ");
        for (key, _, holds) in keys.into_iter().filter(|(_, is_set, holds)| *is_set && !has(holds))
        {
            diagnostics.conflict(
                &format!("{path}.{key}"),
                &format!("it is for {}, and the loss is {listed}", users(holds)),
            );
        }
        let epsilon = self.label_smoothing();
        if has(&is(PreferenceLoss::ExoPair)) && epsilon == 0.0 {
            let reason = "`exo_pair` needs a share above 0, such as 0.001";
            diagnostics.missing(path, "label_smoothing", reason);
        }
        if has(&is(PreferenceLoss::Robust)) && epsilon >= 0.5 {
            diagnostics.value(&format!("{path}.label_smoothing"), "must be below 0.5", epsilon);
        }
        if self.use_weighting && self.compares_pairs() {
            let reason = "sorted losses belong to no pair";
            diagnostics.conflict(&format!("{path}.use_weighting"), reason);
        }
        let divergence = self.f_divergence.unwrap_or_default();
        if divergence != FDivergence::ReverseKl
            && let Some(other) = losses.iter().find(|loss| !loss.has_f_divergence())
        {
            let reason = format!("`{}` has no other divergence than `reverse_kl`", other.name());
            diagnostics.conflict(&format!("{path}.f_divergence"), &reason);
        }
        if self.f_alpha.is_some() && divergence != FDivergence::AlphaDivergence {
            let reason = "only `f_divergence = \"alpha_divergence\"` uses it";
            diagnostics.conflict(&format!("{path}.f_alpha"), reason);
        }
    }
}

impl PreferenceLoss {
    /// All losses.
    pub const ALL: [Self; 18] = [
        Self::Sigmoid,
        Self::SigmoidNorm,
        Self::Hinge,
        Self::Ipo,
        Self::ExoPair,
        Self::NcaPair,
        Self::Robust,
        Self::BcoPair,
        Self::SppoHard,
        Self::Aot,
        Self::AotUnpaired,
        Self::ApoZero,
        Self::ApoDown,
        Self::DiscoPop,
        Self::Sft,
        Self::Cpo,
        Self::SimPo,
        Self::Orpo,
    ];
}
