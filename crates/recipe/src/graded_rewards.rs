//! Rewards that a language model or a program computes: `judge` and `command`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostics::Diagnostics;
use crate::template::Template;

/// Keys of the reward `judge`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JudgeKeys {
    /// Judge: a stage of this recipe, a run's stage, or a language model as a directory or `hf:OWNER/MODEL`. It has its own
    /// tokenizer and is not trained.
    #[schemars(extend("format" = "input-path"))]
    pub start: String,
    /// Question to the judge, with `{prompt}` and `{completion}`, and `{answer}` if `answer` is set.
    pub template: Template,
    /// Text for `{answer}`, made from the columns of the prompt's row. Prompts without it have no such reward.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Template>,
    /// Regular expression whose first group is the score in the judge's reply. Default: the last number of the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub pattern: Option<String>,
    /// Lowest and highest score. A reply without a score in this range has no such reward.
    #[serde(default = "default_range")]
    pub range: [f64; 2],
    /// Maximum number of tokens of the judge's reply, which is its most likely one.
    #[serde(default = "default_reply_tokens")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max_new_tokens: usize,
    /// Whether the question is a user's message in the judge's chat template, if it has one.
    #[serde(default = "yes")]
    pub chat: bool,
}

impl JudgeKeys {
    /// Names that `template` can have.
    const PLACEHOLDERS: [&str; 3] = ["prompt", "completion", "answer"];

    pub(crate) fn check(&self, path: &str, diagnostics: &mut Diagnostics) {
        let template = format!("{path}.template");
        let mut columns = self.template.columns();
        if let Some(other) = columns.find(|column| !Self::PLACEHOLDERS.contains(column)) {
            let rule =
                "must have no other placeholders than `{prompt}`, `{completion}` and `{answer}`";
            diagnostics.value(&template, rule, format!("{{{other}}}"));
        }
        let has = |name: &str| self.template.columns().any(|column| column == name);
        if !has("completion") {
            let rule = "must have `{completion}`, the text to judge";
            diagnostics.value(&template, rule, self.template.as_str());
        }
        match (&self.answer, has("answer")) {
            (None, true) => {
                let reason = "`template` has `{answer}`: its text, as in `\"{answer}\"`";
                diagnostics.missing(path, "answer", reason);
            }
            (Some(_), false) => {
                diagnostics.conflict(&format!("{path}.answer"), "`template` has no `{answer}`");
            }
            (None, false) | (Some(_), true) => {}
        }
        let [low, high] = self.range;
        // Scores are 32-bit numbers.
        let is_number = |bound: f64| (bound as f32).is_finite();
        if low >= high || !is_number(low) || !is_number(high) {
            let rule = "must be a lower and a higher number";
            diagnostics.value(&format!("{path}.range"), rule, format!("[{low}, {high}]"));
        }
    }
}

/// Keys of the reward `command`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandKeys {
    /// Program and its arguments. There is no shell. The program runs in the recipe's directory.
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1)))]
    pub argv: Vec<String>,
    /// Text that the program gets as `answer`, made from the columns of the prompt's row. Prompts without it have no such
    /// reward. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Template>,
    /// Seconds that the program may take for a completion.
    #[serde(default = "default_timeout")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 86_400.0))]
    pub timeout_s: f64,
    /// Maximum length of a line that the program writes, in bytes.
    #[serde(default = "default_output_bytes")]
    #[schemars(range(min = 16, max = 1_073_741_824))]
    pub max_output_bytes: usize,
    /// Address space of each of its processes, in MiB.
    #[serde(default = "default_memory")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_memory_mb: u64,
    /// Number of processes that it may have, itself included.
    #[serde(default = "default_processes")]
    #[schemars(range(min = 1, max = 65_536))]
    pub max_processes: usize,
}

impl CommandKeys {
    pub(crate) fn check(&self, path: &str, diagnostics: &mut Diagnostics) {
        let has_zero = |argument: &&String| argument.contains('\0');
        if let Some(argument) = self.argv.iter().find(has_zero) {
            diagnostics.value(&format!("{path}.argv"), "must not contain a zero byte", argument);
        }
    }
}

fn default_range() -> [f64; 2] {
    [0.0, 10.0]
}

fn default_reply_tokens() -> usize {
    64
}

fn yes() -> bool {
    true
}

fn default_timeout() -> f64 {
    10.0
}

fn default_output_bytes() -> usize {
    65_536
}

fn default_memory() -> u64 {
    1024
}

fn default_processes() -> usize {
    16
}
