//! `[ppo]`: proximal policy optimization against a reward model, or rewards that are computed from the text.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chat_keys::ChatTemplate;
use crate::diagnostics::Diagnostics;
use crate::input_keys::{OnBadRow, default_max_bad_rows};
use crate::lora::LoraKeys;
use crate::rewards::{self, Reward};
use crate::source::{SampleKind, Source};
use crate::stage_keys::{Samples, StageKeys};
use crate::train_keys::TrainKeys;

/// Proximal policy optimization: the policy answers prompts, a reward model or checks of the text score
/// the answers, a value model predicts the scores, and the policy is updated towards answers that scored better
/// than predicted, with a KL penalty that keeps it close to its first weights. A step is one
/// update; `micro_batch` counts episodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PpoSection {
    /// Policy model. Its first weights, frozen, are the reference model.
    pub policy: PpoModel,
    /// Reward model: a stage of this recipe (`"reward"`), a run's stage, or a Hugging Face sequence
    /// classifier with one label, as a directory or `hf:OWNER/MODEL`. It is not trained. Short for
    /// `rewards = [{ kind = "model", start = "reward" }]`. Default: none; `rewards` is then required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "input-path"))]
    pub reward: Option<String>,
    /// Rewards of an answer, in place of `reward`: the score is the sum of their weighted values. A
    /// reward without a value for a prompt is left out of that prompt's sum.
    /// Default: none; `reward` is then required.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100))]
    pub rewards: Vec<Reward>,
    /// Value model. Default: starts from the reward model; if the policy trains an adapter, so does
    /// the value model, and it continues the reward model's adapter if there is one. Needed without a
    /// reward model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<PpoModel>,
    /// Data sources of the prompts. A row has `prompt`, a text or a list of messages, or `messages`
    /// that end with a user's.
    #[schemars(length(min = 1, max = 10_000))]
    pub prompts: Vec<Source>,
    /// Chat template: `chatml`, `plain`, `model` (that of the policy) or a `.jinja` file. Default:
    /// `model` if it has one, else `chatml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<ChatTemplate>,
    /// End-of-text token, which is saved with the model as its `eos_token`. It also ends the answers
    /// of a chat template that writes no token after them. Default: that of the tokenizer's files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub eos_token: Option<String>,
    /// Maximum number of tokens of a prompt. Longer prompts are dropped and counted.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_prompt_tokens: usize,
    /// Maximum number of tokens of an answer.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_new_tokens: usize,
    /// Number of answers per update.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub episodes_per_step: usize,
    /// Divisor of the logits, in sampling and in the loss. Answers are sampled without top-k or
    /// top-p, which log-probabilities would not reflect.
    #[serde(default = "default_temperature")]
    #[schemars(range(min = 0.01, max = 100.0))]
    pub temperature: f64,
    /// Penalty on the KL divergence from the reference model.
    #[serde(default)]
    pub kl: Kl,
    /// Amount subtracted from the score of an answer without an end token.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub missing_eos_penalty: f64,
    /// Whether rewards are scaled to a variance of 1 before advantages are estimated. The mean
    /// stays.
    #[serde(default)]
    pub whiten_rewards: bool,
    /// Discount factor γ of rewards, per token.
    #[serde(default = "default_gamma")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// λ of generalized advantage estimation.
    #[serde(default = "default_lambda")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub lambda: f64,
    /// Clip range ε of the ratio between new and old probabilities.
    #[serde(default = "default_clip_range")]
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub clip_range: f64,
    /// Clip range of value predictions around their old values.
    #[serde(default = "default_clip_range")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
    pub clip_range_value: f64,
    /// Coefficient of the value loss.
    #[serde(default = "default_vf_coef")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
    pub vf_coef: f64,
    /// Number of passes over the answers per update.
    #[serde(default = "default_n_ppo_epochs")]
    #[schemars(range(min = 1, max = 1000))]
    pub n_ppo_epochs: usize,
    /// Number of optimizer steps per pass. It must divide `episodes_per_step`.
    #[serde(default = "default_n_minibatches")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub n_minibatches: usize,
    /// Approximate KL divergence between the new and the old policy, in nats per token, above which
    /// an update stops early. Default: no early stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
    pub target_kl: Option<f64>,
    /// Definition of the token positions that count; see docs/design/ppo.md.
    #[serde(default)]
    pub conventions: Conventions,
    /// Handling of rows that cannot be read.
    #[serde(default)]
    pub on_bad_row: OnBadRow,
    /// Maximum number of rows that `on_bad_row = "skip"` skips before the stage stops.
    #[serde(default = "default_max_bad_rows")]
    pub max_bad_rows: u64,
    /// Limits, optimizer, schedule, validation and checkpoints.
    #[serde(flatten)]
    pub train: TrainKeys,
}

/// A model that PPO trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PpoModel {
    /// Initial weights: a stage of this recipe (`"sft"`), a run's stage, a checkpoint, a Hugging
    /// Face directory, or `hf:OWNER/MODEL` after `temper get`.
    #[schemars(extend("format" = "input-path"))]
    pub start: String,
    /// LoRA adapter to train. Default: all weights are trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraKeys>,
}

/// Penalty on the KL divergence from the reference model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kl {
    /// Estimator of the divergence per token.
    #[serde(default)]
    pub estimator: KlEstimator,
    /// Coefficient β of the penalty, per nat; with `target`, its initial value.
    #[serde(default = "default_kl_coef")]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub coef: f64,
    /// Divergence per answer, in nats, that an adaptive `coef` aims at. Default: `coef` is
    /// constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
    pub target: Option<f64>,
    /// Number of answers over which `coef` adapts.
    #[serde(default = "default_kl_horizon")]
    #[schemars(range(min = 1.0, max = 1e9))]
    pub horizon: f64,
}

impl Default for Kl {
    fn default() -> Self {
        let (coef, horizon) = (default_kl_coef(), default_kl_horizon());
        Self { estimator: KlEstimator::K1, coef, target: None, horizon }
    }
}

/// Estimator of the KL divergence of a token from its two log-probabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KlEstimator {
    /// log π − log π_ref: unbiased, of either sign.
    #[default]
    K1,
    /// eʳ − 1 − r with r = log π_ref − log π: unbiased, never negative.
    K3,
}

/// Definition of the token positions that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Conventions {
    /// Sampled tokens and their end token.
    #[default]
    RealTokens,
    /// The positions of TRL 1.12.
    Trl,
}

impl PpoSection {
    /// Initial weights of the value model: those of `value`, else the first reward model's.
    pub fn value_start(&self) -> Option<&str> {
        let value = self.value.as_ref().map(|value| value.start.as_str());
        value.or_else(|| self.reward_models().first().map(|(_, start, _)| *start))
    }

    /// The reward models: path within the section, start and weight of each.
    pub fn reward_models(&self) -> Vec<(Cow<'static, str>, &str, f64)> {
        match &self.reward {
            Some(start) => vec![(Cow::Borrowed("reward"), start, 1.0)],
            None => rewards::models_of(&self.rewards),
        }
    }

    pub(crate) fn stage_keys(&self) -> StageKeys<'_> {
        StageKeys {
            start: Some(&self.policy.start),
            lora: self.policy.lora.as_ref(),
            lora_key: "policy.lora",
            weights: self.weights(),
            data: &self.prompts,
            data_key: "prompts",
            samples: Samples::Prompts,
            chat_template: self.chat_template.as_ref(),
            eos_token: self.eos_token.as_deref(),
            added_tokens: [&[], &[]],
            sample_length: self.max_prompt_tokens,
            sequence_length: self.max_prompt_tokens.saturating_add(self.max_new_tokens),
            length_key: "max_new_tokens",
            added_length_key: Some("max_prompt_tokens"),
            rows_per_step: self.episodes_per_step,
            texts_per_row: 1,
            on_bad_row: self.on_bad_row,
            answers: self.rewards.iter().filter_map(|reward| reward.kind.answer()).collect(),
            max_bad_rows: self.max_bad_rows,
            train: &self.train,
        }
    }

    /// Every value of the section that names weights, with its path.
    fn weights(&self) -> Vec<(Cow<'static, str>, &str)> {
        let reward = self.reward.as_deref().map(|start| (Cow::Borrowed("reward"), start));
        let mut weights = rewards::weights_of(&self.rewards);
        weights.extend(reward);
        let models = [
            ("policy.start", "policy.lora.adapter", Some(&self.policy)),
            ("value.start", "value.lora.adapter", self.value.as_ref()),
        ];
        for (start_key, adapter_key, model) in models {
            let Some(model) = model else { continue };
            weights.push((start_key.into(), &model.start));
            let adapter = model.lora.as_ref().and_then(|lora| lora.adapter.as_deref());
            weights.extend(adapter.map(|adapter| (adapter_key.into(), adapter)));
        }
        weights
    }

    pub(crate) fn check(&self, path: &str, diagnostics: &mut Diagnostics) {
        for (idx, source) in self.prompts.iter().enumerate() {
            source.check(&format!("{path}.prompts[{idx}]"), SampleKind::Prompts, diagnostics);
        }
        self.check_rewards(path, diagnostics);
        for (key, model) in [("policy", Some(&self.policy)), ("value", self.value.as_ref())] {
            let Some(lora) = model.and_then(|model| model.lora.as_ref()) else { continue };
            let path = format!("{path}.{key}.lora");
            lora.check(&path, diagnostics);
            if lora.dropout.is_some_and(|dropout| dropout > 0.0) {
                diagnostics.conflict(
                    &format!("{path}.dropout"),
                    "with dropout, the policy that samples differs from the policy that is trained",
                );
            }
        }
        // Models on one base share its weights, so those have one type; fully trained models are f32.
        let dtype = |model: &PpoModel| {
            model.lora.as_ref().and_then(|lora| lora.base_dtype).unwrap_or_default()
        };
        if self.value.as_ref().is_some_and(|value| dtype(value) != dtype(&self.policy)) {
            diagnostics.conflict(
                &format!("{path}.value"),
                "policy and value model need the same `lora.base_dtype`",
            );
        }
        if !self.episodes_per_step.is_multiple_of(self.n_minibatches.max(1)) {
            diagnostics.value(
                &format!("{path}.n_minibatches"),
                &format!("must divide `episodes_per_step` ({})", self.episodes_per_step),
                self.n_minibatches,
            );
        }
        if self.train.max_tokens.is_some() {
            diagnostics.conflict(
                &format!("{path}.max_tokens"),
                "the length of answers is not known in advance: use `max_steps` or `epochs`",
            );
        }
        self.train.check(path, diagnostics);
    }
}

impl PpoSection {
    fn check_rewards(&self, path: &str, diagnostics: &mut Diagnostics) {
        match (&self.reward, self.rewards.as_slice()) {
            (Some(_), [_, ..]) => diagnostics.conflict(
                &format!("{path}.reward"),
                "`rewards` is set too: add `{ kind = \"model\", start = … }` to `rewards`",
            ),
            (None, []) => {
                diagnostics.missing(
                    path,
                    "reward",
                    "a reward model, or `rewards = [{ kind = … }]`",
                );
            }
            (Some(_), []) | (None, [_, ..]) => {}
        }
        rewards::check(&self.rewards, &format!("{path}.rewards"), diagnostics);
        let has_rewards = self.reward.is_some() || !self.rewards.is_empty();
        if has_rewards && self.value_start().is_none() {
            let reason = "without a reward model, the value model needs weights to start from: \
                          `value = { start = \"sft\" }`";
            diagnostics.missing(path, "value", reason);
        }
    }
}

fn default_temperature() -> f64 {
    1.0
}

fn default_gamma() -> f64 {
    1.0
}

fn default_lambda() -> f64 {
    0.95
}

fn default_clip_range() -> f64 {
    0.2
}

fn default_vf_coef() -> f64 {
    0.1
}

fn default_n_ppo_epochs() -> usize {
    4
}

fn default_n_minibatches() -> usize {
    1
}

fn default_kl_coef() -> f64 {
    0.05
}

fn default_kl_horizon() -> f64 {
    10_000.0
}
