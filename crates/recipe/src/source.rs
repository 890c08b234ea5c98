//! `[[…data]]`: where a stage's rows lie and how text is made of them. Opens no file: formats and
//! columns are checked by `data`.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problems::Problems;
use crate::template::Template;

/// One place that rows come from: a file, a folder or a pattern, and what to read in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A file, a folder or a pattern such as `texts/*.jsonl.gz`, beside the recipe;
    /// `data:sft/x.json` lies under the data directory. `.gz` and `.zst` are unpacked while
    /// reading.
    #[schemars(extend("format" = "input-path"))]
    pub path: String,
    /// How often this source's rows are shown beside the others': 2.0 shows them twice as often as
    /// a source of 1.0.
    #[serde(default = "default_weight")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1000.0))]
    pub weight: f64,
    /// How the file is written. Left out, the file's extension says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The column that holds the text, for rows of several columns. Left out, `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub text: Option<String>,
    /// Texts made from any columns, `{column}` standing for a column's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Rows>,
    /// Other names for the columns that a layout looks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Columns>,
    /// What a row is. Left to `auto`, the columns say it.
    #[serde(default)]
    pub layout: Layout,
    /// Use only the first rows of this source, for a quick try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
}

/// How a data file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Plain UTF-8 text; a file is one document.
    Text,
    /// One JSON object a line.
    Jsonl,
    /// One JSON array of objects.
    Json,
    /// Comma-separated values with a header line.
    Csv,
    /// Tab-separated values with a header line.
    Tsv,
    /// Apache Parquet.
    Parquet,
    /// Apache Arrow IPC, file or stream.
    Arrow,
}

/// What a row of a source is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Told from the columns.
    #[default]
    Auto,
    /// One text.
    Text,
    /// A prompt and its completion.
    PromptCompletion,
    /// A chat: a list of messages, each with `role` and `content`.
    Messages,
    /// An instruction, often with an input, and its output.
    Instruction,
    /// A tree of messages, as OpenAssistant's: each path from the root to an assistant's message is
    /// a chat.
    Tree,
}

/// Texts made from any columns: `{column}` stands for a column's value, `{{` and `}}` for braces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// The document to learn from (pretraining), such as `"{title}\n{body}"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Template>,
    /// What the model is given, such as `"Write a comment that shows {emotions}."`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Template>,
    /// What the model learns to answer, such as `"{text}"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<Template>,
    /// The better of two answers (pairs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Template>,
    /// The worse of two answers (pairs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Template>,
}

/// Other names for the columns that a layout looks for: `columns = { prompt = "question" }`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// The column of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub prompt: Option<String>,
    /// The column of the completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub completion: Option<String>,
    /// The column of the list of messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub messages: Option<String>,
    /// The column of the instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub instruction: Option<String>,
    /// The column of the instruction's input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub input: Option<String>,
    /// The column of the instruction's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub output: Option<String>,
    /// The column of the better of two answers (pairs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub chosen: Option<String>,
    /// The column of the worse of two answers (pairs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub rejected: Option<String>,
}

/// What a stage makes of its rows: it decides which keys of a source mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Documents to continue.
    Documents,
    /// Conversations to answer.
    Chats,
    /// Pairs of answers, the better one first.
    Pairs,
}

impl Source {
    /// The path on this machine: `data:` paths under `data_dir`, relative ones under `recipe_dir`.
    pub fn resolve(&self, recipe_dir: &Path, data_dir: &Path) -> PathBuf {
        resolve(&self.path, recipe_dir, data_dir)
    }

    /// Whether the path is one under the data directory.
    pub fn needs_data_dir(&self) -> bool {
        self.path.starts_with(DATA_PREFIX)
    }

    pub(crate) fn check(&self, path: &str, wanted: Use, problems: &mut Problems) {
        if let Some(rows) = &self.rows {
            rows.check(&format!("{path}.rows"), wanted, problems);
            if self.text.is_some() {
                problems.conflict(
                    &format!("{path}.text"),
                    "`rows` already says where the text comes from",
                );
            }
            if self.columns.is_some() {
                problems.conflict(&format!("{path}.columns"), "`rows` already names the columns");
            }
            if !matches!(self.layout, Layout::Auto | Layout::Text | Layout::PromptCompletion) {
                problems.conflict(&format!("{path}.layout"), "`rows` already says what a row is");
            }
        }
        let refused = match wanted {
            Use::Documents => !matches!(self.layout, Layout::Auto | Layout::Text),
            Use::Chats => self.layout == Layout::Text,
            Use::Pairs => self.layout != Layout::Auto,
        };
        if refused {
            let reason = match wanted {
                Use::Documents => "pretraining reads documents, not chats: `auto` or `text`",
                Use::Chats => "fine-tuning needs to know what is asked and what is answered",
                Use::Pairs => "a pair's columns say what it is: leave `layout` out",
            };
            problems.conflict(&format!("{path}.layout"), reason);
        }
        if wanted == Use::Chats && self.text.is_some() {
            problems.conflict(
                &format!("{path}.text"),
                "fine-tuning reads prompts and completions: `columns` or `rows` name theirs",
            );
        }
        if wanted == Use::Pairs && self.text.is_some() {
            problems.conflict(
                &format!("{path}.text"),
                "pairs have `prompt`, `chosen` and `rejected`: `columns` or `rows` name theirs",
            );
        }
        if wanted != Use::Pairs
            && let Some(columns) = &self.columns
        {
            for (key, column) in [("chosen", &columns.chosen), ("rejected", &columns.rejected)] {
                if column.is_some() {
                    problems.conflict(&format!("{path}.columns.{key}"), ONLY_PAIRS);
                }
            }
        }
        if wanted == Use::Documents && self.columns.is_some() {
            problems.conflict(
                &format!("{path}.columns"),
                "pretraining reads one text a row: `text` names its column",
            );
        }
    }
}

impl Rows {
    fn check(&self, path: &str, wanted: Use, problems: &mut Problems) {
        let pairs = [("chosen", &self.chosen), ("rejected", &self.rejected)];
        if wanted != Use::Pairs {
            for (key, _) in pairs.iter().filter(|(_, template)| template.is_some()) {
                problems.conflict(&format!("{path}.{key}"), ONLY_PAIRS);
            }
        }
        match wanted {
            Use::Pairs => {
                for (key, template) in pairs {
                    if template.is_none() {
                        problems.missing(path, key, "a pair needs `chosen` and `rejected`");
                    }
                }
                for (key, template) in [("text", &self.text), ("completion", &self.completion)] {
                    if template.is_some() {
                        problems.conflict(
                            &format!("{path}.{key}"),
                            "pairs are made of `prompt`, `chosen` and `rejected`",
                        );
                    }
                }
            }
            Use::Documents => {
                if self.text.is_none() {
                    problems.missing(path, "text", "pretraining makes one text of each row");
                }
                for (key, template) in [("prompt", &self.prompt), ("completion", &self.completion)]
                {
                    if template.is_some() {
                        problems.conflict(
                            &format!("{path}.{key}"),
                            "pretraining makes one text of each row: `text`",
                        );
                    }
                }
            }
            Use::Chats => {
                for (key, template) in [("prompt", &self.prompt), ("completion", &self.completion)]
                {
                    if template.is_none() {
                        problems.missing(
                            path,
                            key,
                            "fine-tuning needs what is asked and what is answered",
                        );
                    }
                }
                if self.text.is_some() {
                    problems.conflict(
                        &format!("{path}.text"),
                        "fine-tuning makes `prompt` and `completion` of each row",
                    );
                }
            }
        }
    }
}

const ONLY_PAIRS: &str = "only a stage that learns from pairs reads it, such as [reward]";

/// What a path under the data directory starts with.
pub const DATA_PREFIX: &str = "data:";

/// A path of the recipe on this machine: `data:` paths under `data_dir`, relative ones under
/// `recipe_dir`.
pub fn resolve(path: &str, recipe_dir: &Path, data_dir: &Path) -> PathBuf {
    match path.strip_prefix(DATA_PREFIX) {
        Some(inside) => data_dir.join(inside),
        None => recipe_dir.join(path),
    }
}

fn default_weight() -> f64 {
    1.0
}
