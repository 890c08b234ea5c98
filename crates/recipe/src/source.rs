//! `[[…data]]`: where a stage's rows lie and how text is made of them. Opens no file: formats and
//! columns are checked by `data`.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::column_values::ColumnValues;
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
    /// Only the rows whose columns have one of these values: `{ emotions = ["joy", "love"] }`. Of
    /// several columns each must; the others are left out and counted.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<ColumnValues>,
    /// Pairs drawn from rows of one text each, by what stands in their columns (stages that learn
    /// from pairs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<DrawnPairs>,
    /// Use only the first rows of this source, for a quick try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
}

/// Pairs drawn from rows of one text each: `{ from = "text", chosen = { emotions = ["joy"] },
/// rejected = { emotions = ["anger"] } }`. A row that fits `chosen` and `rejected`, or neither, is
/// in no pair. Every text of the larger side comes in one pair, those of the smaller one in as many
/// as it takes; who stands beside whom is drawn by the recipe's seed. Texts are held out first, by
/// their content, and pairs drawn on either side: no text is in a training pair and in a held-out
/// one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrawnPairs {
    /// The column of the text.
    #[schemars(length(min = 1))]
    pub from: String,
    /// Which rows are the better ones.
    pub chosen: ColumnValues,
    /// Which rows are the worse ones.
    pub rejected: ColumnValues,
    /// What both texts answer, such as `"Write a comment."`. Left out, they stand alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Template>,
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

/// Texts made from any columns: `{column}` stands for a column's value, `{{` and `}}` for braces. A
/// list is joined with " and ": `["joy", "love"]` reads "joy and love".
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
    /// The column of the margin (pairs for a reward model): by how much the chosen answer's score must be above the
    /// rejected one's, on top of the section's own `margin`. Left out, none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub margin: Option<String>,
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
    /// Prompts to answer.
    Prompts,
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
}

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
