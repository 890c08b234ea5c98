//! `[ppo]`: learn from the scores of a reward model (proximal policy optimisation).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::input_keys::default_max_bad_rows;
use crate::lora::LoraKeys;
use crate::problems::Problems;
use crate::source::{Source, Use};
use crate::train_keys::TrainKeys;
use crate::{ChatTemplate, OnBadRow, Stage};

/// Learn from the scores of a reward model: the policy answers prompts, the reward model scores the
/// answers, a value model learns what to expect, and the policy is moved towards what was better
/// than expected, but not far from where it started. A step is one update; `micro_batch` counts
/// episodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PpoSection {
    /// What answers and learns. Its first weights, frozen, are the reference that it is kept near.
    pub policy: Role,
    /// The reward model: a stage of this recipe (`"reward"`), a run's stage, or a Hugging Face
    /// sequence classifier with one label. It is not trained.
    #[schemars(extend("format" = "input-path"))]
    pub reward: String,
    /// What learns to expect scores. Left out, it starts from the reward model, and trains an
    /// adapter where the policy does: the reward model's own if that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Role>,
    /// Where the prompts lie: a list of sources. A row has `prompt`, a text or a list of messages,
    /// or `messages` up to a user's.
    #[schemars(length(min = 1, max = 10_000))]
    pub prompts: Vec<Source>,
    /// How a prompt is written out: `chatml`, `plain`, `model` (the policy's own) or a `.jinja`
    /// file. Left out, `model` where it has one, else `chatml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<ChatTemplate>,
    /// The most tokens a prompt may have; longer ones are dropped and counted.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_prompt_tokens: usize,
    /// The most tokens of an answer.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_new_tokens: usize,
    /// The answers of an update.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub episodes_per_step: usize,
    /// Divides the logits before sampling, and in the loss. Nothing else shapes what is sampled:
    /// log-probabilities would not see it.
    #[serde(default = "default_temperature")]
    #[schemars(range(min = 0.01, max = 100.0))]
    pub temperature: f64,
    /// What moving away from the reference costs.
    #[serde(default)]
    pub kl: Kl,
    /// Taken from the score of an answer that did not end by itself. Left out, nothing.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub missing_eos_penalty: f64,
    /// Scale rewards to a variance of 1 before advantages are estimated; their mean stays.
    #[serde(default)]
    pub whiten_rewards: bool,
    /// γ: what a reward a token later is worth.
    #[serde(default = "default_gamma")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// λ of generalised advantage estimation.
    #[serde(default = "default_lambda")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub lambda: f64,
    /// ε: how far the ratio of new to old probability counts.
    #[serde(default = "default_clip_range")]
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub clip_range: f64,
    /// How far a value may move from its old one before the loss no longer counts it.
    #[serde(default = "default_clip_range")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
    pub clip_range_value: f64,
    /// The weight of the value loss beside the policy loss.
    #[serde(default = "default_vf_coef")]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub vf_coef: f64,
    /// How often an update goes over its answers.
    #[serde(default = "default_n_ppo_epochs")]
    #[schemars(range(min = 1, max = 1000))]
    pub n_ppo_epochs: usize,
    /// Optimizer steps in each such epoch; it divides `episodes_per_step`.
    #[serde(default = "default_n_minibatches")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub n_minibatches: usize,
    /// End an update before a step once the new policy is this far from the old one, in nats a token
    /// (approximate KL). Left out, it never ends early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
    pub target_kl: Option<f64>,
    /// What counts as a position: docs/design/ppo.md compares the two.
    #[serde(default)]
    pub conventions: Conventions,
    /// Show sample answers every so many updates.
    #[serde(default = "default_sample_every_steps")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub sample_every_steps: u64,
    /// What happens when a row of prompts cannot be read.
    #[serde(default)]
    pub on_bad_row: OnBadRow,
    /// How many rows `on_bad_row = "skip"` leaves out before it stops after all.
    #[serde(default = "default_max_bad_rows")]
    pub max_bad_rows: u64,
    /// How it trains.
    #[serde(flatten)]
    pub train: TrainKeys,
}

/// A model of PPO that learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// The weights to start from: a stage of this recipe (`"sft"`), a run's stage, a checkpoint, or a
    /// Hugging Face folder.
    #[schemars(extend("format" = "input-path"))]
    pub start: String,
    /// Train a low-rank adapter beside those weights. Left out, all weights are trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraKeys>,
}

/// What moving away from the reference costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kl {
    /// How the divergence of a token is estimated.
    #[serde(default)]
    pub estimator: KlEstimator,
    /// β: what a nat of it costs; where `target` is given, at the start.
    #[serde(default = "default_kl_coef")]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub coef: f64,
    /// Move `coef` so that the divergence of an answer comes to this many nats. Left out, `coef` stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
    pub target: Option<f64>,
    /// Over how many answers `coef` moves.
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

/// How the KL divergence of a token is estimated from its two log-probabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KlEstimator {
    /// log π − log π_ref: right on average, of either sign.
    #[default]
    K1,
    /// eʳ − 1 − r with r = log π_ref − log π: right on average, never below 0.
    K3,
}

/// What counts as a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Conventions {
    /// Sampled tokens, the end token among them, and nothing else.
    #[default]
    RealTokens,
    /// As TRL 1.12 does it, to the letter.
    Trl,
}

impl PpoSection {
    pub(crate) const PATH: &'static str = "ppo";

    /// The value model: what the recipe says, or what stands for it.
    pub fn value_start(&self) -> &str {
        self.value.as_ref().map_or(&self.reward, |value| &value.start)
    }

    pub(crate) fn stage(&self) -> Stage<'_> {
        Stage {
            name: Self::PATH,
            start: Some(&self.policy.start),
            lora: self.policy.lora.as_ref(),
            data_key: "prompts",
            data: &self.prompts,
            sequence_length: self.max_prompt_tokens.saturating_add(self.max_new_tokens),
            rows_per_step: self.episodes_per_step,
            on_bad_row: self.on_bad_row,
            max_bad_rows: self.max_bad_rows,
            train: &self.train,
        }
    }

    /// Every place of the section that names weights, with its key path.
    pub(crate) fn starts(&self) -> Vec<(String, &str)> {
        let mut starts = vec![("ppo.reward".to_owned(), self.reward.as_str())];
        for (key, role) in [("policy", Some(&self.policy)), ("value", self.value.as_ref())] {
            let Some(role) = role else { continue };
            starts.push((format!("ppo.{key}.start"), &role.start));
            let adapter = role.lora.as_ref().and_then(|lora| lora.adapter.as_deref());
            starts.extend(adapter.map(|adapter| (format!("ppo.{key}.lora.adapter"), adapter)));
        }
        starts
    }

    pub(crate) fn check(&self, problems: &mut Problems) {
        for (idx, source) in self.prompts.iter().enumerate() {
            source.check(&format!("ppo.prompts[{idx}]"), Use::Prompts, problems);
        }
        for (key, role) in [("policy", Some(&self.policy)), ("value", self.value.as_ref())] {
            let Some(lora) = role.and_then(|role| role.lora.as_ref()) else { continue };
            let path = format!("ppo.{key}.lora");
            lora.check(&path, problems);
            if lora.dropout.is_some_and(|dropout| dropout > 0.0) {
                problems.conflict(
                    &format!("{path}.dropout"),
                    "with dropout the policy that samples is not the one that learns",
                );
            }
        }
        // Roles on one base share its weights, so those are held in one way; what is trained whole is f32.
        let dtype =
            |role: &Role| role.lora.as_ref().and_then(|lora| lora.base_dtype).unwrap_or_default();
        if self.value.as_ref().is_some_and(|value| dtype(value) != dtype(&self.policy)) {
            problems.conflict(
                "ppo.value",
                "policy and value model hold their frozen weights in the same `lora.base_dtype`, or in f32",
            );
        }
        if !self.episodes_per_step.is_multiple_of(self.n_minibatches.max(1)) {
            problems.value(
                "ppo.n_minibatches",
                &format!("must divide `episodes_per_step` ({})", self.episodes_per_step),
                self.n_minibatches,
            );
        }
        if self.train.max_tokens.is_some() {
            problems.conflict(
                "ppo.max_tokens",
                "how long answers will be is not known; `max_steps` or `epochs` over the prompts ends the stage",
            );
        }
        self.train.check(Self::PATH, problems);
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

fn default_sample_every_steps() -> u64 {
    10
}

fn default_kl_coef() -> f64 {
    0.05
}

fn default_kl_horizon() -> f64 {
    10_000.0
}
