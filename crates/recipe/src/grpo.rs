//! `[grpo]`: group-relative policy optimization on rewards, and its relatives.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chat_keys::ChatTemplate;
use crate::diagnostics::Diagnostics;
use crate::input_keys::{OnBadRow, default_max_bad_rows};
use crate::ppo::{Conventions, PpoModel};
use crate::rewards::{self, Reward};
use crate::source::{SampleKind, Source};
use crate::stage_keys::{Samples, StageKeys};
use crate::train_keys::TrainKeys;

/// Group-relative policy optimization: the policy answers each prompt several times, rewards score the answers, and the
/// policy is updated towards answers that scored better than others of the same prompt. There is no value model. A step
/// is one update; `micro_batch` counts answers. Keys that [ppo] lacks have TRL's names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpoSection {
    /// Policy model. Its first weights, frozen, are the reference model, which is in memory only if `beta` is not 0.
    pub policy: PpoModel,
    /// Rewards of an answer. A reward without a value for a prompt is left out of that prompt's sum.
    #[schemars(length(min = 1, max = 100))]
    pub rewards: Vec<Reward>,
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
    /// Number of prompts per update.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub prompts_per_step: usize,
    /// Number of answers to each prompt: its group.
    #[serde(default = "default_num_generations")]
    #[schemars(range(min = 2, max = 65_536))]
    pub num_generations: usize,
    /// Divisor of the logits, in sampling and in the loss.
    #[serde(default = "one")]
    #[schemars(range(min = 0.01, max = 100.0))]
    pub temperature: f64,
    /// Samples from the smallest set of tokens with at least this probability. The loss computes probabilities without
    /// `top_p`, `top_k` and `min_p`, as in TRL. Default: all tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1.0))]
    pub top_p: Option<f64>,
    /// Samples from this many of the most likely tokens. Default: all tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub top_k: Option<usize>,
    /// Samples from tokens with at least this fraction of the most likely one's probability. Default: all tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_p: Option<f64>,
    /// Dynamic sampling (DAPO): groups whose rewards are all equal teach nothing. They are replaced by groups of other prompts,
    /// up to this many times per update. Default: 0, no replacement.
    #[serde(default)]
    #[schemars(range(max = 1000))]
    pub dynamic_sampling_max_tries: u64,
    /// Number of passes over the answers per update.
    #[serde(default = "default_one")]
    #[schemars(range(min = 1, max = 1000))]
    pub num_iterations: usize,
    /// Number of optimizer steps per pass (TRL's `steps_per_generation`). It must divide the number of answers.
    #[serde(default = "default_one")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub n_minibatches: usize,
    /// Advantage of an answer: its reward minus the mean of its group, or minus the mean of the others (RLOO).
    #[serde(default)]
    pub advantage: Advantage,
    /// Policy loss. `advantage = "leave_one_out"` has a loss of its own, the clipped ratio of whole answers.
    /// Default: `dapo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_type: Option<GrpoLoss>,
    /// Coefficient β of the KL divergence from the reference model. It is part of the loss of each token, or of the
    /// reward with `leave_one_out`. Default: 0, or 0.05 with `leave_one_out`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub beta: Option<f64>,
    /// Whether the reference model follows the policy. Its weights become `ref_model_mixup_alpha` × the policy's +
    /// (1 − `ref_model_mixup_alpha`) × its own (TR-DPO; Gorbatovski et al. 2024). Default: it stays the first policy.
    #[serde(default)]
    pub sync_ref_model: bool,
    /// Share of the policy in the new reference model (`sync_ref_model` only). With an adapter it must be 1. Default: 0.6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1.0))]
    pub ref_model_mixup_alpha: Option<f64>,
    /// Number of updates between changes of the reference model (`sync_ref_model` only). Default: 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub ref_model_sync_steps: Option<u64>,
    /// Whether the divergence of a token is multiplied by its probability ratio, which makes its gradient unbiased.
    #[serde(default = "yes")]
    pub use_bias_correction_kl: bool,
    /// ε: probability ratios are clipped at 1 − ε.
    #[serde(default = "default_epsilon")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub epsilon: f64,
    /// Ratios are clipped at 1 + `epsilon_high`; DAPO uses 0.28. With `loss_type = "cispo"` it is the largest ratio
    /// itself, such as 5.0. Default: `epsilon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub epsilon_high: Option<f64>,
    /// Largest ratio of the branch of the loss that is not clipped, above 1 + `epsilon_high`. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 1.0), range(max = 1e6))]
    pub delta: Option<f64>,
    /// Level of probability ratios: one for each token, or one for each answer (GSPO).
    #[serde(default)]
    pub importance_sampling_level: ImportanceSamplingLevel,
    /// Scaling of advantages: by the standard deviation of the group's rewards, of all rewards of the update, or none.
    #[serde(default)]
    pub scale_rewards: ScaleRewards,
    /// Combination of several rewards.
    #[serde(default)]
    pub multi_objective_aggregation: MultiObjectiveAggregation,
    /// Whether advantages are standardized over the update (`leave_one_out` only).
    #[serde(default)]
    pub normalize_advantages: bool,
    /// Bounds of an answer's sum of rewards (`leave_one_out` only). Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward_clip_range: Option<[f64; 2]>,
    /// Amount subtracted from the reward of an answer without an end token.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub missing_eos_penalty: f64,
    /// Whether answers without an end token are left out of the loss. Their rewards count in those of their group.
    #[serde(default)]
    pub mask_truncated_completions: bool,
    /// Share of the tokens with the highest entropy to which the policy's own term of the loss is restricted.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1.0))]
    pub top_entropy_quantile: f64,
    /// Coefficient of the mean entropy, which is subtracted from the loss.
    #[serde(default)]
    #[schemars(range(min = -1e3, max = 1e3))]
    pub entropy_coef: f64,
    /// Answers with a negative advantage are left out of the loss if their probability has fallen by more than this since
    /// sampling, as a mean log-ratio per token. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub off_policy_mask_threshold: Option<f64>,
    /// Temperature of `sapo` for advantages above 0.
    #[serde(default = "one")]
    #[schemars(range(min = 1e-3, max = 1e3))]
    pub sapo_temperature_pos: f64,
    /// Temperature of `sapo` for other advantages.
    #[serde(default = "default_sapo_temperature_neg")]
    #[schemars(range(min = 1e-3, max = 1e3))]
    pub sapo_temperature_neg: f64,
    /// Exponent k of `vespo` for advantages of at least 0.
    #[serde(default = "two")]
    #[schemars(range(min = 0.0, max = 1e3))]
    pub vespo_k_pos: f64,
    /// Decay λ of `vespo` for advantages of at least 0.
    #[serde(default = "three")]
    #[schemars(range(min = 0.0, max = 1e3))]
    pub vespo_lambda_pos: f64,
    /// Exponent k of `vespo` for negative advantages.
    #[serde(default = "three")]
    #[schemars(range(min = 0.0, max = 1e3))]
    pub vespo_k_neg: f64,
    /// Decay λ of `vespo` for negative advantages.
    #[serde(default = "two")]
    #[schemars(range(min = 0.0, max = 1e3))]
    pub vespo_lambda_neg: f64,
    /// Batches over which means are taken: those of an optimizer step, or TRL's micro-batches; see docs/design/grpo.md.
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

/// Advantage of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Advantage {
    /// Reward minus the mean of the group (GRPO).
    #[default]
    Group,
    /// Reward minus the mean of the others of the group (RLOO).
    LeaveOneOut,
}

/// Policy loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GrpoLoss {
    /// Clipped ratios, averaged over the tokens of each answer and then over answers.
    Grpo,
    /// Clipped ratios, averaged over the tokens of the minibatch.
    Bnpo,
    /// Clipped ratios, summed and divided by answers × `max_new_tokens`.
    DrGrpo,
    /// Clipped ratios, averaged over the tokens of the whole update.
    #[default]
    Dapo,
    /// REINFORCE weighted by capped ratios, averaged as in `dapo`.
    Cispo,
    /// A smooth gate in place of the clip range, averaged as in `grpo`.
    Sapo,
    /// REINFORCE weighted by a gamma-shaped function of the answer's ratio, averaged as in `dapo`.
    Vespo,
    /// Clipped ratios, summed over the tokens of each answer and averaged over answers.
    Luspo,
}

/// Level of probability ratios.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImportanceSamplingLevel {
    /// One ratio for each token.
    #[default]
    Token,
    /// One ratio for each answer, the geometric mean of its tokens' (GSPO).
    Sequence,
}

/// Scaling of advantages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScaleRewards {
    /// By the standard deviation of the group.
    #[default]
    Group,
    /// By the standard deviation of all rewards of the update.
    Batch,
    /// Not scaled.
    None,
}

/// Combination of several rewards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MultiObjectiveAggregation {
    /// The weighted sum is normalized by group.
    #[default]
    SumThenNormalize,
    /// Each reward is normalized by group; their weighted sum is normalized over the update.
    NormalizeThenSum,
}

impl GrpoSection {
    /// The policy loss; none with `leave_one_out`, which has its own.
    pub fn loss(&self) -> Option<GrpoLoss> {
        match self.advantage {
            Advantage::Group => Some(self.loss_type.unwrap_or_default()),
            Advantage::LeaveOneOut => None,
        }
    }

    /// β of the KL divergence from the reference model.
    pub fn beta(&self) -> f64 {
        let default = match self.advantage {
            Advantage::Group => 0.0,
            Advantage::LeaveOneOut => 0.05,
        };
        self.beta.unwrap_or(default)
    }

    /// Answers of an update.
    pub fn episodes_per_step(&self) -> usize {
        self.prompts_per_step.saturating_mul(self.num_generations)
    }

    /// The reward models: path within the section, start and weight of each.
    pub fn reward_models(&self) -> Vec<(Cow<'static, str>, &str, f64)> {
        rewards::models_of(&self.rewards)
    }

    /// Share of the policy in a new reference model.
    pub fn ref_model_mixup_alpha(&self) -> f64 {
        self.ref_model_mixup_alpha.unwrap_or(0.6)
    }

    /// Number of updates between changes of the reference model; `None` if it stays the first policy.
    pub fn ref_model_sync_steps(&self) -> Option<u64> {
        self.sync_ref_model.then(|| self.ref_model_sync_steps.unwrap_or(512))
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
            rows_per_step: self.prompts_per_step,
            texts_per_row: self.num_generations,
            on_bad_row: self.on_bad_row,
            answers: self.rewards.iter().filter_map(|reward| reward.kind.answer()).collect(),
            max_bad_rows: self.max_bad_rows,
            train: &self.train,
        }
    }

    /// Every value of the section that names weights, with its path.
    fn weights(&self) -> Vec<(Cow<'static, str>, &str)> {
        let rewards = rewards::weights_of(&self.rewards);
        let adapter = self.policy.lora.as_ref().and_then(|lora| lora.adapter.as_deref());
        let adapter = adapter.map(|adapter| ("policy.lora.adapter".into(), adapter));
        let policy = [("policy.start".into(), self.policy.start.as_str())];
        rewards.into_iter().chain(policy).chain(adapter).collect()
    }

    pub(crate) fn check(&self, path: &str, diagnostics: &mut Diagnostics) {
        for (idx, source) in self.prompts.iter().enumerate() {
            source.check(&format!("{path}.prompts[{idx}]"), SampleKind::Prompts, diagnostics);
        }
        rewards::check(&self.rewards, &format!("{path}.rewards"), diagnostics);
        if let Some(lora) = &self.policy.lora {
            let path = format!("{path}.policy.lora");
            lora.check(&path, diagnostics);
            if lora.dropout.is_some_and(|dropout| dropout > 0.0) {
                diagnostics.conflict(
                    &format!("{path}.dropout"),
                    "with dropout, the policy that samples differs from the policy that is trained",
                );
            }
        }
        if !self.episodes_per_step().is_multiple_of(self.n_minibatches.max(1)) {
            let n = self.episodes_per_step();
            let rule = format!("must divide `prompts_per_step` × `num_generations` ({n})");
            let key = format!("{path}.n_minibatches");
            diagnostics.value(&key, &rule, self.n_minibatches);
        }
        self.check_loss(path, diagnostics);
        self.check_reference(path, diagnostics);
        if self.train.max_tokens.is_some() {
            diagnostics.conflict(
                &format!("{path}.max_tokens"),
                "the length of answers is not known in advance: use `max_steps` or `epochs`",
            );
        }
        self.train.check(path, diagnostics);
    }

    /// Refuses keys of a reference model that the section does not have.
    fn check_reference(&self, path: &str, diagnostics: &mut Diagnostics) {
        let of_sync = [
            ("ref_model_mixup_alpha", self.ref_model_mixup_alpha.is_some()),
            ("ref_model_sync_steps", self.ref_model_sync_steps.is_some()),
        ];
        if !self.sync_ref_model {
            for (key, _) in of_sync.iter().filter(|(_, is_set)| *is_set) {
                let key = format!("{path}.{key}");
                diagnostics.conflict(&key, "only `sync_ref_model = true` uses it");
            }
        } else if self.beta() == 0.0 {
            let reason = "there is no reference model to change: set `beta` above 0";
            diagnostics.conflict(&format!("{path}.sync_ref_model"), reason);
        } else if self.policy.lora.is_some() && self.ref_model_mixup_alpha() < 1.0 {
            let reason = "a mixture of two adapters' factors is no mixture of their weights: with `lora`, set \
                          `ref_model_mixup_alpha = 1.0`, which copies the policy";
            diagnostics.conflict(&format!("{path}.sync_ref_model"), reason);
        }
    }

    /// Refuses keys that the chosen loss or advantage does not use.
    fn check_loss(&self, path: &str, diagnostics: &mut Diagnostics) {
        let is_rloo = self.advantage == Advantage::LeaveOneOut;
        let of_group = [
            ("loss_type", self.loss_type.is_some()),
            ("delta", self.delta.is_some()),
            (
                "importance_sampling_level",
                self.importance_sampling_level != ImportanceSamplingLevel::Token,
            ),
            ("scale_rewards", self.scale_rewards != ScaleRewards::Group),
            (
                "multi_objective_aggregation",
                self.multi_objective_aggregation != MultiObjectiveAggregation::SumThenNormalize,
            ),
            ("use_bias_correction_kl", !self.use_bias_correction_kl),
            ("off_policy_mask_threshold", self.off_policy_mask_threshold.is_some()),
            ("top_entropy_quantile", self.top_entropy_quantile < 1.0),
            ("entropy_coef", self.entropy_coef != 0.0),
        ];
        let of_rloo = [
            ("normalize_advantages", self.normalize_advantages),
            ("reward_clip_range", self.reward_clip_range.is_some()),
        ];
        let (unused, why) = if is_rloo {
            (&of_group[..], "`advantage = \"leave_one_out\"` does not use it")
        } else {
            (&of_rloo[..], "only `advantage = \"leave_one_out\"` uses it")
        };
        for (key, _) in unused.iter().filter(|(_, is_set)| *is_set) {
            diagnostics.conflict(&format!("{path}.{key}"), why);
        }
        if self.loss() == Some(GrpoLoss::Cispo) && self.epsilon_high.is_none() {
            let reason = "`cispo` needs the largest probability ratio, such as 5.0";
            diagnostics.missing(path, "epsilon_high", reason);
        }
        if let Some([low, high]) = self.reward_clip_range
            && low >= high
        {
            let key = format!("{path}.reward_clip_range");
            diagnostics.value(
                &key,
                "must be a lower and a higher number",
                format!("[{low}, {high}]"),
            );
        }
    }
}

fn default_num_generations() -> usize {
    8
}

fn default_one() -> usize {
    1
}

fn one() -> f64 {
    1.0
}

fn two() -> f64 {
    2.0
}

fn three() -> f64 {
    3.0
}

fn yes() -> bool {
    true
}

fn default_epsilon() -> f64 {
    0.2
}

fn default_sapo_temperature_neg() -> f64 {
    1.05
}
