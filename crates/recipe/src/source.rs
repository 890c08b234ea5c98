//! `data = […]`: the files that rows come from, and the columns that text is made of. Formats and
//! columns are checked by `data`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::column_values::ColumnValues;
use crate::template::Template;

/// A data source: a file, a directory or a pattern, and the columns to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A file, a directory or a pattern such as `texts/*.jsonl.gz`, relative to the recipe;
    /// `data:sft/x.json` is under the data directory. `hf:datasets/OWNER/NAME` is a data set after
    /// `temper get`. `.gz` and `.zst` files are decompressed while reading.
    #[schemars(extend("format" = "input-path"))]
    pub path: String,
    /// Relative frequency of this source's rows: 2.0 shows them twice as often as those of a source
    /// with 1.0.
    #[serde(default = "default_weight")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1000.0))]
    pub weight: f64,
    /// File format. Default: by the file's extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Split of a directory whose files or sub-directories have the names of splits, such as
    /// `train-00000-of-00002.parquet` and `test.jsonl`. Default: `train`; other files are not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub split: Option<String>,
    /// Key of a JSON object that contains the list of rows: `field = "data"` reads
    /// `{"version": 1, "data": [...]}`. Default: the file is a list of rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub field: Option<String>,
    /// Character between the values of a CSV file, such as `";"`. Default: `,`, and a tab in a TSV
    /// file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1))]
    pub delimiter: Option<String>,
    /// Maximum size of a row of a text, JSON or CSV file in bytes, and of the texts of a chat, a pair or a prompt. Default: 4 MiB,
    /// of which such texts may take 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub max_row_bytes: Option<usize>,
    /// Column of the text. Default: `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub text: Option<String>,
    /// Texts made from several columns by templates such as `"{title}: {body}"`.
    /// Default: texts are read from the columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Rows>,
    /// Names of the columns, where they differ from those that a layout expects. Default: the usual names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Columns>,
    /// Layout of a row. `auto` detects it from the columns.
    #[serde(default)]
    pub layout: RowLayout,
    /// Filter on column values: `{ emotions = ["joy", "love"] }` keeps the rows that have one of
    /// them. With several columns all must match. Other rows are skipped and counted. Default: all rows.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<ColumnValues>,
    /// Pairs drawn from rows of one text each, by the values of their columns ([reward] and [dpo]).
    /// Default: no pairs are drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<DrawnPairs>,
    /// Roles by the names that the data uses for them, beside the usual names: `{ developer =
    /// "system" }`. Default: the usual names alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<String, RoleName>,
    /// Columns and fields of messages that are left out on purpose. Images and other columns that
    /// are no text stop the stage unless they are named here. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore_columns: Vec<String>,
    /// Maximum number of rows to read, for a quick trial. Default: all rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
}

/// Pairs drawn from rows of one text each: `{ from = "text", chosen = { emotions = ["joy"] },
/// rejected = { emotions = ["anger"] } }`. A row that matches both `chosen` and `rejected`, or
/// neither, is in no pair. Every text of the larger group is in one pair; those of the smaller
/// group are repeated. The recipe's seed decides which texts form a pair. Texts are split into
/// training and validation by their content before pairs are drawn, so no text is in both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrawnPairs {
    /// Column of the text.
    #[schemars(length(min = 1))]
    pub from: String,
    /// Filter of the better texts.
    pub chosen: ColumnValues,
    /// Filter of the worse texts.
    pub rejected: ColumnValues,
    /// Prompt that both texts answer, such as `"Write a comment."`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Template>,
}

/// File format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Plain UTF-8 text; a file is one document.
    Text,
    /// One JSON object per line.
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

/// Role of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// Instructions for the whole conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The output of a tool.
    Tool,
}

/// Layout of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RowLayout {
    /// Detected from the columns.
    #[default]
    Auto,
    /// One text.
    Text,
    /// A prompt and its completion.
    PromptCompletion,
    /// A chat: a list of messages with `role` and `content`.
    Messages,
    /// An instruction, often with an input, and its output.
    Instruction,
    /// A prompt, a completion and a label that says whether the completion is desirable, as for
    /// KTO. [kto] reads all rows; fine-tuning reads those whose label is true and counts the others.
    Kto,
    /// Token ids in `input_ids`, often with `labels` (-100 where a token is no target),
    /// `attention_mask` (0 for padding), `completion_mask` or `assistant_masks`.
    Pretokenized,
    /// A tree of messages, as in OpenAssistant: each path from the root to an assistant's message
    /// is a chat.
    Tree,
}

/// Texts made from columns: `{column}` is replaced by a column's value, `{{` and `}}` are braces. A
/// list is joined with " and ": `["joy", "love"]` becomes "joy and love".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// The document (pretraining), such as `"{title}\n{body}"`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Template>,
    /// The prompt, such as `"Write a comment that shows {emotions}."`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Template>,
    /// The completion, such as `"{text}"`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<Template>,
    /// The better of two answers (pairs). Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Template>,
    /// The worse of two answers (pairs). Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Template>,
}

/// Names of the columns, where they differ from those that a layout expects: `columns = { prompt =
/// "question" }`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// Column of the prompt. Default: `prompt` or `question`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub prompt: Option<String>,
    /// Column of the completion. Default: `completion`, `response` or `answer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub completion: Option<String>,
    /// Column of the label of a completion: true if it is desirable. Default: `label`, if it is a
    /// boolean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub label: Option<String>,
    /// Column of the list of messages. Default: `messages`, `conversations` or `conversation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub messages: Option<String>,
    /// Column of the instruction. Default: `instruction`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub instruction: Option<String>,
    /// Column of the instruction's input. Default: `input` or `context`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub input: Option<String>,
    /// Column of the instruction's output. Default: `output` or `response`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub output: Option<String>,
    /// Column of the system prompt. Default: `system` or `system_prompt`, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub system: Option<String>,
    /// Column of the turns before a prompt: a list of pairs of a prompt and an answer. Default:
    /// `history`, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub history: Option<String>,
    /// Column of the tools that the assistant may call: a list, or JSON text of one. Default:
    /// `tools`, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub tools: Option<String>,
    /// Column of the better of two answers (pairs). Default: `chosen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub chosen: Option<String>,
    /// Column of the worse of two answers (pairs). Default: `rejected`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub rejected: Option<String>,
    /// Column of a margin per pair ([reward]), added to the section's own `margin`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub margin: Option<String>,
}

impl Columns {
    /// Names of columns that the recipe gives.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        let Self {
            prompt,
            completion,
            label,
            messages,
            instruction,
            input,
            output,
            system,
            history,
            tools,
            chosen,
            rejected,
            margin,
        } = self;
        [prompt, completion, label, messages, instruction, input, output]
            .into_iter()
            .chain([system, history, tools, chosen, rejected, margin])
            .flatten()
    }
}

/// Samples that a stage makes of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleKind {
    /// Documents to continue.
    Documents,
    /// Conversations to answer.
    Chats,
    /// Pairs of answers, the chosen one first.
    Pairs,
    /// Single answers to prompts, each labelled desirable or undesirable.
    Completions,
    /// Conversations up to the point where an answer is due.
    Prompts,
}

impl Source {
    /// Path on this machine: `data:` paths are under `data_dir`, relative ones under `recipe_dir`.
    pub fn resolve(&self, recipe_dir: &Path, data_dir: &Path) -> PathBuf {
        resolve(&self.path, recipe_dir, data_dir)
    }

    /// Whether the path is under the data directory.
    pub fn needs_data_dir(&self) -> bool {
        self.path.starts_with(DATA_PREFIX)
    }
}

/// Prefix of paths under the data directory.
pub const DATA_PREFIX: &str = "data:";

/// Path of a recipe on this machine: `data:` paths are under `data_dir`, relative ones under
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
