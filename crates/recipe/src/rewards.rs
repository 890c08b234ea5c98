//! `rewards = […]`: rewards that a stage computes from the text of an answer, or asks a model for. They are computed by the
//! crate `rewards`.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostics::Diagnostics;
use crate::extract::Extract;
use crate::graded_rewards::{CommandKeys, JudgeKeys};
use crate::template::Template;

/// A reward: its kind, the keys of that kind, and its weight in the sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reward {
    /// The kind of the reward with its keys.
    #[serde(flatten)]
    pub kind: RewardKind,
    /// Factor of the reward in the sum.
    #[serde(default = "default_weight")]
    #[schemars(range(min = -1000.0, max = 1000.0))]
    pub weight: f64,
}

/// The kind of a reward.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RewardKind {
    /// 1 if the answer states the right number, else 0: `{ kind = "number", answer = "{answer}" }`. Thousands
    /// separators, decimals, fractions and percent signs are read, and units are ignored.
    Number(NumberKeys),
    /// 1 if the answer selects the right option of a multiple-choice question, else 0.
    Choice(ChoiceKeys),
    /// 1 if the answer is the right text, else 0. Runs of white space count as one space.
    Exact(ExactKeys),
    /// 1 if a regular expression matches somewhere in the answer, else 0.
    Regex(RegexKeys),
    /// 1 if the answer consists of tags in order, such as `<think>…</think><answer>…</answer>`, each once and
    /// closed, with nothing around them; else 0.
    Format(FormatKeys),
    /// A penalty for long answers, or a reward for short right ones.
    Length(LengthKeys),
    /// The negative share of word n-grams that occur again: from 0 down to -1.
    Repetition(RepetitionKeys),
    /// 1 if the answer is a JSON document that matches a schema, else 0.
    JsonSchema(JsonSchemaKeys),
    /// The score of a reward model.
    Model(ModelKeys),
    /// The score that a local language model gives the answer in reply to a question.
    Judge(JudgeKeys),
    /// The value that a program computes. Programs are started only if the command line has `--allow-commands`.
    Command(CommandKeys),
}

/// Keys of the reward `number`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NumberKeys {
    /// Right number, made from the columns of the prompt's row. If the text has `####`, as in GSM8K, only what
    /// follows counts. Prompts without a number have no such reward.
    pub answer: Template,
    /// Place of the answer in the text: `"last"` number, after `"####"`, in `"boxed"` (`\boxed{…}`), in a tag
    /// (`"tag:answer"`), or the text as a whole (`"all"`).
    #[serde(default = "last")]
    pub extract: Extract,
    /// Largest difference from the right number that still counts.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1e9))]
    pub tolerance: f64,
}

/// Keys of the reward `choice`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChoiceKeys {
    /// Letter of the right option, made from the columns of the prompt's row. Prompts without one have no such
    /// reward.
    pub answer: Template,
    /// Place of the answer in the text: the `"last"` letter, after `"####"`, in `"boxed"`, in a tag
    /// (`"tag:answer"`), or the text as a whole (`"all"`).
    #[serde(default = "last")]
    pub extract: Extract,
    /// Letters of the options.
    #[serde(default = "default_choices")]
    #[schemars(length(min = 2, max = 26))]
    pub choices: String,
}

/// Keys of the reward `exact`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExactKeys {
    /// Right text, made from the columns of the prompt's row. Prompts without it have no such reward.
    pub answer: Template,
    /// Place of the answer in the text: as a whole (`"all"`), its `"last"` line, after `"####"`, in `"boxed"` or in
    /// a tag (`"tag:answer"`).
    #[serde(default = "all")]
    pub extract: Extract,
    /// Whether upper and lower case are the same.
    #[serde(default)]
    pub ignore_case: bool,
}

/// Keys of the reward `regex`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegexKeys {
    /// Regular expression without look-around and back-references, which matches in linear time. `^` and `$` are the
    /// ends of the whole answer unless `(?m)` is set.
    #[schemars(length(min = 1))]
    pub pattern: String,
}

/// Keys of the reward `format`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FormatKeys {
    /// Names of the tags in order.
    #[schemars(length(min = 1, max = 100), inner(length(min = 1)))]
    pub tags: Vec<String>,
}

/// Keys of the reward `length`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LengthKeys {
    /// Dependence on the length.
    #[serde(default)]
    pub shape: LengthShape,
    /// Length in tokens at which `overlong` is -1 and `cosine` ends. Default: `max_new_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_tokens: Option<usize>,
    /// Number of tokens before `max_tokens` over which the penalty grows (`overlong` only).
    /// Default: none; `overlong` requires it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub cache_tokens: Option<usize>,
    /// Rewards of a right answer of length 0 and of `max_tokens` (`cosine` only). Default: `[1.0, 0.5]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correct: Option<[f64; 2]>,
    /// Rewards of a wrong answer of length 0 and of `max_tokens` (`cosine` only). Default: `[-1.0, -0.5]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong: Option<[f64; 2]>,
}

/// Dependence of a reward on the length of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LengthShape {
    /// DAPO's penalty: 0, then linearly down to -1 over the last `cache_tokens` before `max_tokens`.
    #[default]
    Overlong,
    /// Half a cosine between two values, for right and for wrong answers. The rewards `number`, `choice`, `exact`,
    /// `regex` and `json_schema` of the list decide whether an answer is right.
    Cosine,
}

/// Keys of the reward `repetition`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepetitionKeys {
    /// Words of an n-gram.
    #[schemars(range(min = 1, max = 1000))]
    pub n: usize,
}

/// Keys of the reward `json_schema`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonSchemaKeys {
    /// The schema as JSON text, such as `'{"type": "object", "required": ["name"]}'`.
    #[schemars(length(min = 1))]
    pub schema: String,
    /// Place of the document in the text: as a whole (`"all"`), after `"####"`, or in a tag (`"tag:answer"`). A code
    /// fence around it is removed.
    #[serde(default = "all")]
    pub extract: Extract,
}

/// Keys of the reward `model`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelKeys {
    /// Reward model: a stage of this recipe (`"reward"`), a run's stage, or a Hugging Face sequence
    /// classifier with one label, as a directory or `hf:OWNER/MODEL`. It is not trained.
    #[schemars(extend("format" = "input-path"))]
    pub start: String,
}

impl LengthKeys {
    /// Rewards of a right answer of length 0 and of the largest length.
    pub fn correct(&self) -> [f64; 2] {
        self.correct.unwrap_or([1.0, 0.5])
    }

    /// Rewards of a wrong answer of length 0 and of the largest length.
    pub fn wrong(&self) -> [f64; 2] {
        self.wrong.unwrap_or([-1.0, -0.5])
    }
}

impl RewardKind {
    /// Name of the kind in a recipe.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Number(_) => "number",
            Self::Choice(_) => "choice",
            Self::Exact(_) => "exact",
            Self::Regex(_) => "regex",
            Self::Format(_) => "format",
            Self::Length(_) => "length",
            Self::Repetition(_) => "repetition",
            Self::JsonSchema(_) => "json_schema",
            Self::Model(_) => "model",
            Self::Judge(_) => "judge",
            Self::Command(_) => "command",
        }
    }

    /// The right answer, for kinds that compare with one.
    pub fn answer(&self) -> Option<&Template> {
        match self {
            Self::Number(keys) => Some(&keys.answer),
            Self::Choice(keys) => Some(&keys.answer),
            Self::Exact(keys) => Some(&keys.answer),
            Self::Judge(keys) => keys.answer.as_ref(),
            Self::Command(keys) => keys.answer.as_ref(),
            Self::Regex(_)
            | Self::Format(_)
            | Self::Length(_)
            | Self::Repetition(_)
            | Self::JsonSchema(_)
            | Self::Model(_) => None,
        }
    }

    /// The weights of the model that computes the reward, if one does.
    pub fn start(&self) -> Option<&str> {
        match self {
            Self::Model(keys) => Some(&keys.start),
            Self::Judge(keys) => Some(&keys.start),
            Self::Number(_)
            | Self::Choice(_)
            | Self::Exact(_)
            | Self::Regex(_)
            | Self::Format(_)
            | Self::Length(_)
            | Self::Repetition(_)
            | Self::JsonSchema(_)
            | Self::Command(_) => None,
        }
    }

    /// Whether a reward model computes the reward.
    pub fn is_model(&self) -> bool {
        matches!(self, Self::Model(_))
    }

    /// Whether a judge or a program computes the reward.
    pub fn is_graded(&self) -> bool {
        matches!(self, Self::Judge(_) | Self::Command(_))
    }

    /// Whether the reward says if an answer is right.
    pub fn checks_answer(&self) -> bool {
        match self {
            Self::Number(_)
            | Self::Choice(_)
            | Self::Exact(_)
            | Self::Regex(_)
            | Self::JsonSchema(_) => true,
            Self::Format(_)
            | Self::Length(_)
            | Self::Repetition(_)
            | Self::Model(_)
            | Self::Judge(_)
            | Self::Command(_) => false,
        }
    }
}

/// The reward models of a list: path within the section, start and weight of each.
pub(crate) fn models_of(rewards: &[Reward]) -> Vec<(Cow<'static, str>, &str, f64)> {
    let models = rewards.iter().enumerate().filter(|(_, reward)| reward.kind.is_model());
    models
        .filter_map(|(idx, reward)| Some((start_key(idx), reward.kind.start()?, reward.weight)))
        .collect()
}

/// Every value of a list that names weights, with its path within the section.
pub(crate) fn weights_of(rewards: &[Reward]) -> Vec<(Cow<'static, str>, &str)> {
    let rewards = rewards.iter().enumerate();
    rewards.filter_map(|(idx, reward)| Some((start_key(idx), reward.kind.start()?))).collect()
}

/// Path of the weights that a reward names.
fn start_key(idx: usize) -> Cow<'static, str> {
    Cow::Owned(format!("rewards[{idx}].start"))
}

/// Most rewards of a stage; each has its memory.
const MOST_REWARDS: usize = 32;

/// Checks a list of rewards for conflicts between keys.
pub(crate) fn check(rewards: &[Reward], path: &str, diagnostics: &mut Diagnostics) {
    if rewards.len() > MOST_REWARDS {
        diagnostics.value(
            path,
            &format!("must have at most {MOST_REWARDS} entries"),
            rewards.len(),
        );
    }
    for (idx, reward) in rewards.iter().enumerate() {
        let path = format!("{path}[{idx}]");
        if reward.weight as f32 == 0.0 {
            // Scores are 32-bit numbers.
            diagnostics.value(&format!("{path}.weight"), "must not be 0", reward.weight);
        }
        match &reward.kind {
            RewardKind::Length(keys) => {
                let has_check = rewards.iter().any(|reward| reward.kind.checks_answer());
                check_length(keys, has_check, &path, diagnostics);
            }
            RewardKind::Choice(keys) => {
                let is_letter = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
                if !keys.choices.chars().all(is_letter) {
                    let path = format!("{path}.choices");
                    diagnostics.value(&path, "must be capital letters or digits", &keys.choices);
                }
            }
            RewardKind::JsonSchema(keys) if keys.extract == Extract::Last => {
                let rule = "must be `all`, `####`, `boxed` or `tag:` with a name";
                diagnostics.value(&format!("{path}.extract"), rule, "last");
            }
            RewardKind::Judge(keys) => keys.check(&path, diagnostics),
            RewardKind::Command(keys) => keys.check(&path, diagnostics),
            RewardKind::Number(_)
            | RewardKind::Exact(_)
            | RewardKind::Regex(_)
            | RewardKind::Format(_)
            | RewardKind::Repetition(_)
            | RewardKind::JsonSchema(_)
            | RewardKind::Model(_) => {}
        }
    }
}

/// `has_check` says whether another reward of the list checks the answer.
fn check_length(keys: &LengthKeys, has_check: bool, path: &str, diagnostics: &mut Diagnostics) {
    match keys.shape {
        LengthShape::Overlong => {
            for (key, is_set) in
                [("correct", keys.correct.is_some()), ("wrong", keys.wrong.is_some())]
            {
                if is_set {
                    diagnostics
                        .conflict(&format!("{path}.{key}"), "only `shape = \"cosine\"` uses it");
                }
            }
            let longest = keys.max_tokens.unwrap_or(usize::MAX);
            match keys.cache_tokens {
                None => {
                    diagnostics.missing(
                        path,
                        "cache_tokens",
                        "tokens over which the penalty grows",
                    );
                }
                Some(cache) if cache > longest => diagnostics.value(
                    &format!("{path}.cache_tokens"),
                    &format!("must be at most `max_tokens` ({longest})"),
                    cache,
                ),
                Some(_) => {}
            }
        }
        LengthShape::Cosine => {
            if !has_check {
                diagnostics.conflict(
                    &format!("{path}.shape"),
                    "`cosine` needs a reward that checks the answer: `number`, `choice`, `exact`, \
                     `regex` or `json_schema`",
                );
            }
            if keys.cache_tokens.is_some() {
                diagnostics.conflict(
                    &format!("{path}.cache_tokens"),
                    "only `shape = \"overlong\"` uses it",
                );
            }
        }
    }
}

fn default_weight() -> f64 {
    1.0
}

fn default_choices() -> String {
    "ABCDE".to_owned()
}

fn last() -> Extract {
    Extract::Last
}

fn all() -> Extract {
    Extract::All
}
