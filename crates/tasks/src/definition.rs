//! The keys of a task file. docs/evaluate.md describes them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::choices::ListKey;
use crate::exact_match::ExactMatchKeys;
use crate::filters::FilterKeys;

/// A task file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Definition {
    pub(crate) name: Option<String>,
    pub(crate) kind: KindKey,
    pub(crate) data: PathsKey,
    pub(crate) source: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) prompt: Option<String>,
    pub(crate) prompts: Option<ListKey>,
    pub(crate) choices: Option<ListKey>,
    pub(crate) answer: Option<AnswerKey>,
    pub(crate) target: Option<String>,
    pub(crate) chosen: Option<String>,
    pub(crate) rejected: Option<String>,
    pub(crate) subset: Option<String>,
    pub(crate) sections: Option<Vec<Section>>,
    pub(crate) metrics: Option<Vec<String>>,
    #[serde(default = "space")]
    pub(crate) answer_delimiter: String,
    #[serde(default = "blank_line")]
    pub(crate) shot_delimiter: String,
    #[serde(default)]
    pub(crate) shots: usize,
    #[serde(default)]
    pub(crate) few_shot: FewShotKeys,
    pub(crate) generation: Option<GenerationKeys>,
    pub(crate) filters: Option<Vec<FilterKeys>>,
    pub(crate) exact_match: Option<ExactMatchKeys>,
}

/// Kind of a task, by lm-evaluation-harness's `output_type` where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KindKey {
    MultipleChoice,
    Loglikelihood,
    LoglikelihoodRolling,
    GenerateUntil,
    InstructionFollowing,
    Pairs,
}

impl KindKey {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MultipleChoice => "multiple_choice",
            Self::Loglikelihood => "loglikelihood",
            Self::LoglikelihoodRolling => "loglikelihood_rolling",
            Self::GenerateUntil => "generate_until",
            Self::InstructionFollowing => "instruction_following",
            Self::Pairs => "pairs",
        }
    }
}

/// One path, or several of which the first that exists is used.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a path or a list of paths")]
pub(crate) enum PathsKey {
    One(String),
    Several(Vec<String>),
}

impl PathsKey {
    pub(crate) fn into_list(self) -> Vec<String> {
        match self {
            Self::One(path) => vec![path],
            Self::Several(paths) => paths,
        }
    }
}

/// The right choice: a number or a template.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected the number of a choice, or a template")]
pub(crate) enum AnswerKey {
    Index(u32),
    Template(String),
}

/// Keys of `[few_shot]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FewShotKeys {
    pub(crate) data: Option<PathsKey>,
    #[serde(default)]
    pub(crate) rows: RowsKey,
    pub(crate) seed: Option<u64>,
    pub(crate) leave_out_row: Option<bool>,
    pub(crate) same: Option<String>,
    pub(crate) examples: Option<Vec<Map<String, Value>>>,
}

/// Which rows are the examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RowsKey {
    /// Other rows for each prompt, drawn with Python's generator.
    #[default]
    Random,
    /// The first rows of the file.
    First,
}

/// Keys of `[generation]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GenerationKeys {
    pub(crate) until: Option<Vec<String>>,
    #[serde(default = "max_new_tokens")]
    pub(crate) max_new_tokens: usize,
    #[serde(default)]
    pub(crate) temperature: f64,
    pub(crate) top_p: Option<f64>,
    #[serde(default = "one")]
    pub(crate) votes: usize,
    #[serde(default)]
    pub(crate) pass_at: Vec<usize>,
}

impl Default for GenerationKeys {
    fn default() -> Self {
        let max_new_tokens = max_new_tokens();
        Self {
            until: None,
            max_new_tokens,
            temperature: 0.0,
            top_p: None,
            votes: 1,
            pass_at: Vec::new(),
        }
    }
}

fn space() -> String {
    " ".to_owned()
}

fn blank_line() -> String {
    "\n\n".to_owned()
}

fn max_new_tokens() -> usize {
    256
}

fn one() -> usize {
    1
}

/// A section as written in a task file.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Section {
    pub(crate) name: String,
    /// Weights of the accuracies of its subsets.
    pub(crate) subsets: BTreeMap<String, f64>,
}
