//! Columns of a row that become the texts of a sample: detected once per source, from the recipe and the first row.

use recipe::{Columns, DrawnPairs, RowLayout, SampleKind, Template};
use serde_json::{Map, Value};

use super::ids::IdColumns;
use super::{context, label_pools, text, tree};
use crate::error::{Error, Result};
use crate::row_problem::{RowProblem, name_list};
use crate::source::Row;

/// Columns that the rows of a source are read from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RowColumns {
    Text(Field),
    PromptCompletion {
        prompt: Field,
        completion: Field,
    },
    Messages {
        column: String,
    },
    /// Token ids.
    Ids(IdColumns),
    /// A tree of messages. The root is a column, or the row itself.
    Tree {
        root: Option<String>,
    },
    /// Two answers to a prompt, or two whole conversations.
    Pair {
        prompt: Option<Field>,
        chosen: Field,
        rejected: Field,
        /// Column with the margin: by how much the chosen one is better.
        margin: Option<String>,
    },
    /// One labelled text, from which pairs are drawn.
    Pool(DrawnPairs),
    /// A prompt without an answer.
    Prompt(Field),
}

/// A text built from a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Field {
    /// The value of a column.
    Column(String),
    /// A template over columns.
    Template(Template),
    /// An instruction and, after an empty line, its input. Either may be empty.
    Instruction { instruction: String, input: Option<String> },
}

/// Keys of a source that decide its columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FormatRequest<'a> {
    pub(crate) layout: RowLayout,
    pub(crate) text: Option<&'a str>,
    pub(crate) rows: Option<&'a recipe::Rows>,
    pub(crate) columns: Option<&'a Columns>,
    pub(crate) pairs: Option<&'a DrawnPairs>,
    /// Roles by the names of the data.
    pub(crate) roles: &'a std::collections::BTreeMap<String, recipe::RoleName>,
    /// Columns and fields of messages that are left out on purpose.
    pub(crate) ignored: &'a [String],
    /// Texts that are stored next to a prompt.
    pub(crate) answers: &'a [recipe::Template],
}

const TEXTS: &[&str] = &["text", "content"];
const PROMPTS: &[&str] = &["prompt", "question"];
const COMPLETIONS: &[&str] = &["completion", "response", "answer"];
const MESSAGES: &[&str] = &["messages", "conversations", "conversation"];
/// Text that a prompt refers to.
const CONTEXT: &str = "context";
const INPUTS: &[&str] = &["input", CONTEXT];
const OUTPUTS: &[&str] = &["output", "response"];

/// Names of columns that are read without the recipe's `columns`, in the order in which they are tried, by their part of a
/// sample.
pub fn usual_columns() -> [(&'static str, &'static [&'static str]); 12] {
    [
        ("text", TEXTS),
        ("messages", MESSAGES),
        ("prompt", PROMPTS),
        ("completion", COMPLETIONS),
        ("instruction", &["instruction"]),
        ("input", INPUTS),
        ("output", OUTPUTS),
        ("chosen", &["chosen"]),
        ("rejected", &["rejected"]),
        ("system", context::SYSTEM),
        ("history", context::HISTORY),
        ("tools", context::TOOLS),
    ]
}

const DOCUMENT_HINT: &str =
    "pretraining reads one text per row: name its column with `text`, or build it with `rows`";
const CHAT_HINT: &str = "fine-tuning reads `messages`; `prompt` and `completion`; `instruction`, `input` and `output`; \
     or message trees: name other columns with `columns`, or build texts with `rows`";

const PAIR_HINT: &str = "pairs are read from `chosen` and `rejected`, often with `prompt`: name other columns with `columns`, or build \
     texts with `rows`";

const COMPLETION_HINT: &str = "labelled answers are read from `prompt`, `completion` and `label`, or from pairs with `chosen` and `rejected`: name \
     other columns with `columns`";

const PROMPT_HINT: &str = "prompts are read from `prompt`, `messages` or `instruction`: name another column with `columns`, or build texts \
     with `rows`";

impl RowColumns {
    /// Detects which columns a source is read from, by its keys and its first row.
    pub(crate) fn detect(
        request: FormatRequest<'_>,
        kind: SampleKind,
        first: &Row,
    ) -> Result<Self> {
        let columns = &first.columns;
        if let (SampleKind::Pairs, Some(pairs)) = (kind, request.pairs) {
            return Ok(Self::Pool(pairs.clone()));
        }
        if let Some(rows) = request.rows {
            return Self::from_templates(rows, kind, first);
        }
        let named = request.columns.cloned().unwrap_or_default();
        let row_format = match (kind, request.layout) {
            (SampleKind::Documents | SampleKind::Chats, RowLayout::Pretokenized) => {
                Some(Self::Ids(IdColumns::of(columns, request.ignored)))
            }
            (SampleKind::Documents | SampleKind::Chats, RowLayout::Auto)
                if request.text.is_none()
                    && named == Columns::default()
                    && IdColumns::are_in(columns) =>
            {
                Some(Self::Ids(IdColumns::of(columns, request.ignored)))
            }
            (SampleKind::Documents, _) => Self::document(request.text, columns),
            (SampleKind::Chats, RowLayout::Auto) => Self::detect_chat(&named, columns),
            (SampleKind::Chats, RowLayout::PromptCompletion | RowLayout::Kto) => {
                Some(Self::prompt_completion(&named, columns))
            }
            (SampleKind::Chats, RowLayout::Messages) => Some(Self::messages(&named, columns)),
            (SampleKind::Chats, RowLayout::Instruction) => Some(Self::instruction(&named, columns)),
            (SampleKind::Chats, RowLayout::Tree) => Some(Self::tree(columns)),
            (SampleKind::Chats, RowLayout::Text) => None,
            (SampleKind::Pairs, _) => Self::pair(&named, columns),
            (SampleKind::Completions, layout) => Self::completion(layout, &named, columns),
            (SampleKind::Prompts, layout) => Self::prompt(layout, &named, columns),
        };
        let with_context = |row_format: Self| {
            let is_ignored = request.ignored.iter().any(|name| name == CONTEXT);
            if is_ignored { row_format } else { row_format.with_context(&named, columns) }
        };
        row_format.map(with_context).ok_or_else(|| Error::UnknownRowFormat {
            location: first.location.clone(),
            columns: name_list(columns.keys().map(String::as_str)),
            hint: match kind {
                SampleKind::Documents => DOCUMENT_HINT,
                SampleKind::Chats => CHAT_HINT,
                SampleKind::Pairs => PAIR_HINT,
                SampleKind::Completions => COMPLETION_HINT,
                SampleKind::Prompts => PROMPT_HINT,
            },
        })
    }

    fn from_templates(rows: &recipe::Rows, kind: SampleKind, first: &Row) -> Result<Self> {
        let field = |template: &Template| Field::Template(template.clone());
        if let (SampleKind::Pairs | SampleKind::Completions, Some(chosen), Some(rejected)) =
            (kind, &rows.chosen, &rows.rejected)
        {
            let prompt = rows.prompt.as_ref().map(field);
            let (chosen, rejected) = (field(chosen), field(rejected));
            return Ok(Self::Pair { prompt, chosen, rejected, margin: None });
        }
        let row_format = match (kind, &rows.text, &rows.prompt, &rows.completion) {
            (SampleKind::Documents, Some(text), _, _) => Some(Self::Text(field(text))),
            (SampleKind::Chats, _, Some(prompt), Some(completion)) => {
                Some(Self::PromptCompletion {
                    prompt: field(prompt),
                    completion: field(completion),
                })
            }
            (SampleKind::Prompts, _, Some(prompt), _) => Some(Self::Prompt(field(prompt))),
            (
                SampleKind::Documents
                | SampleKind::Chats
                | SampleKind::Pairs
                | SampleKind::Completions
                | SampleKind::Prompts,
                ..,
            ) => None,
        };
        row_format.ok_or_else(|| Error::BadSource {
            source_path: first.location.file.display().to_string(),
            problem: match kind {
                SampleKind::Documents => "`rows` needs `text` in pretraining".into(),
                SampleKind::Chats => "`rows` needs `prompt` and `completion` in fine-tuning".into(),
                SampleKind::Pairs | SampleKind::Completions => {
                    "`rows` needs `chosen` and `rejected` for pairs".into()
                }
                SampleKind::Prompts => "`rows` needs `prompt` for prompts".into(),
            },
        })
    }

    fn document(text: Option<&str>, columns: &Map<String, Value>) -> Option<Self> {
        if let Some(column) = text {
            return Some(Self::Text(Field::Column(column.to_owned())));
        }
        let texts: Vec<&String> =
            columns.iter().filter(|(_, value)| value.is_string()).map(|(name, _)| name).collect();
        let column = TEXTS.iter().find(|name| columns.contains_key(**name));
        match (column, texts.as_slice()) {
            (Some(name), _) => Some(Self::Text(Field::Column((*name).to_owned()))),
            (None, [only]) => Some(Self::Text(Field::Column((*only).clone()))),
            _ => None,
        }
    }

    fn detect_chat(named: &Columns, columns: &Map<String, Value>) -> Option<Self> {
        let has = |names: &[&str]| names.iter().any(|name| columns.contains_key(*name));
        if named.messages.is_some() {
            return Some(Self::messages(named, columns));
        }
        if named.instruction.is_some() || named.output.is_some() || named.input.is_some() {
            return Some(Self::instruction(named, columns));
        }
        if named.prompt.is_some() || named.completion.is_some() {
            return Some(Self::prompt_completion(named, columns));
        }
        if MESSAGES.iter().any(|name| columns.get(*name).is_some_and(Value::is_array)) {
            return Some(Self::messages(named, columns));
        }
        if tree::is_node(columns) || columns.get("prompt").is_some_and(Value::is_object) {
            return Some(Self::tree(columns));
        }
        if columns.contains_key("instruction") && has(OUTPUTS) {
            return Some(Self::instruction(named, columns));
        }
        if has(PROMPTS) && has(COMPLETIONS) {
            return Some(Self::prompt_completion(named, columns));
        }
        None
    }

    fn prompt_completion(named: &Columns, columns: &Map<String, Value>) -> Self {
        Self::PromptCompletion {
            prompt: Field::Column(pick(named.prompt.as_ref(), PROMPTS, columns)),
            completion: Field::Column(pick(named.completion.as_ref(), COMPLETIONS, columns)),
        }
    }

    /// Joins a prompt that is one text with the row's context, as an instruction with its input.
    fn with_context(mut self, named: &Columns, columns: &Map<String, Value>) -> Self {
        let (Self::PromptCompletion { prompt, .. }
        | Self::Prompt(prompt)
        | Self::Pair { prompt: Some(prompt), .. }) = &mut self
        else {
            return self;
        };
        let Field::Column(column) = prompt else { return self };
        let has_context = columns.get(CONTEXT).is_some_and(|v| v.is_string() || v.is_null());
        if has_context
            && columns.get(column.as_str()).is_some_and(Value::is_string)
            && !named.names().any(|name| name == CONTEXT)
        {
            let (instruction, input) = (column.clone(), Some(CONTEXT.to_owned()));
            *prompt = Field::Instruction { instruction, input };
        }
        self
    }

    fn pair(named: &Columns, columns: &Map<String, Value>) -> Option<Self> {
        let chosen = pick(named.chosen.as_ref(), &["chosen"], columns);
        let rejected = pick(named.rejected.as_ref(), &["rejected"], columns);
        let there = columns.contains_key(&chosen) && columns.contains_key(&rejected);
        let column = |names: &[&str]| {
            let usual = names.iter().find(|name| columns.contains_key(**name));
            usual.map(|name| Field::Column((*name).to_owned()))
        };
        let by_name = named.prompt.clone().map(Field::Column);
        let prompt = by_name.or_else(|| column(PROMPTS)).or_else(|| {
            let has_instruction =
                named.instruction.is_some() || columns.contains_key("instruction");
            has_instruction.then(|| instruction(named, columns))
        });
        there.then(|| Self::Pair {
            prompt: prompt.or_else(|| column(MESSAGES)),
            chosen: Field::Column(chosen),
            rejected: Field::Column(rejected),
            margin: named.margin.clone(),
        })
    }

    /// Format of labelled answers: a pair, whose two answers have labels by their place, or a completion with a label.
    fn completion(
        layout: RowLayout,
        named: &Columns,
        columns: &Map<String, Value>,
    ) -> Option<Self> {
        let has = |names: &[&str]| names.iter().any(|name| columns.contains_key(*name));
        let is_pair = layout == RowLayout::Auto
            && named.completion.is_none()
            && named.label.is_none()
            && !columns.get("label").is_some_and(Value::is_boolean);
        let pair = if is_pair { Self::pair(named, columns) } else { None };
        let is_known = layout != RowLayout::Auto
            || (named.prompt.is_some() || has(PROMPTS))
                && (named.completion.is_some() || has(COMPLETIONS));
        pair.or_else(|| is_known.then(|| Self::prompt_completion(named, columns)))
    }

    /// Format of prompts: a column of prompts takes precedence over one of conversations.
    fn prompt(layout: RowLayout, named: &Columns, columns: &Map<String, Value>) -> Option<Self> {
        let has = |names: &[&str]| names.iter().any(|name| columns.contains_key(*name));
        let prompt = |name: String| Self::Prompt(Field::Column(name));
        match layout {
            RowLayout::Messages => return Some(Self::messages(named, columns)),
            RowLayout::Instruction => return Some(Self::Prompt(instruction(named, columns))),
            RowLayout::PromptCompletion | RowLayout::Kto => {
                return Some(prompt(pick(named.prompt.as_ref(), PROMPTS, columns)));
            }
            RowLayout::Text | RowLayout::Tree | RowLayout::Pretokenized => return None,
            RowLayout::Auto => {}
        }
        if named.prompt.is_some() {
            return named.prompt.clone().map(prompt);
        }
        if named.messages.is_some() {
            return Some(Self::messages(named, columns));
        }
        if named.instruction.is_some() || named.input.is_some() {
            return Some(Self::Prompt(instruction(named, columns)));
        }
        if has(PROMPTS) && !columns.get("prompt").is_some_and(Value::is_object) {
            return Some(prompt(pick(None, PROMPTS, columns)));
        }
        if MESSAGES.iter().any(|name| columns.get(*name).is_some_and(Value::is_array)) {
            return Some(Self::messages(named, columns));
        }
        columns.contains_key("instruction").then(|| Self::Prompt(instruction(named, columns)))
    }

    fn messages(named: &Columns, columns: &Map<String, Value>) -> Self {
        Self::Messages { column: pick(named.messages.as_ref(), MESSAGES, columns) }
    }

    fn instruction(named: &Columns, columns: &Map<String, Value>) -> Self {
        Self::PromptCompletion {
            prompt: instruction(named, columns),
            completion: Field::Column(pick(named.output.as_ref(), OUTPUTS, columns)),
        }
    }

    fn tree(columns: &Map<String, Value>) -> Self {
        let inside = columns.get("prompt").is_some_and(Value::is_object);
        Self::Tree { root: inside.then(|| "prompt".to_owned()) }
    }

    /// Name of the layout, for people.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::PromptCompletion { prompt: Field::Instruction { instruction, .. }, .. }
                if !PROMPTS.contains(&instruction.as_str()) =>
            {
                "instruction"
            }
            Self::PromptCompletion { .. } => "prompt and completion",
            Self::Messages { .. } => "messages",
            Self::Ids(_) => "pretokenized ids",
            Self::Tree { .. } => "message tree",
            Self::Pair { .. } => "pair",
            Self::Pool(_) => "labelled texts",
            Self::Prompt(_) => "prompt",
        }
    }

    /// Columns that are read; `None` if the whole row is.
    pub(crate) fn names(&self) -> Option<Vec<String>> {
        let mut names = Vec::new();
        match self {
            Self::Text(field) | Self::Prompt(field) => field.add_columns(&mut names),
            Self::PromptCompletion { prompt, completion } => {
                prompt.add_columns(&mut names);
                completion.add_columns(&mut names);
            }
            Self::Messages { column } => names.push(column.clone()),
            Self::Ids(columns) => names.extend(columns.names().cloned()),
            Self::Tree { root } => names.push(root.clone()?),
            Self::Pair { prompt, chosen, rejected, margin } => {
                names.extend(margin.clone());
                for field in prompt.iter().chain([chosen, rejected]) {
                    field.add_columns(&mut names);
                }
            }
            Self::Pool(pairs) => label_pools::add_columns(pairs, &mut names),
        }
        Some(names)
    }
}

impl Field {
    fn add_columns(&self, names: &mut Vec<String>) {
        match self {
            Self::Column(column) => names.push(column.clone()),
            Self::Template(template) => names.extend(template.columns().map(str::to_owned)),
            Self::Instruction { instruction, input } => {
                names.push(instruction.clone());
                names.extend(input.clone());
            }
        }
    }

    pub(crate) fn read(
        &self,
        columns: &Map<String, Value>,
    ) -> std::result::Result<String, RowProblem> {
        match self {
            Self::Column(column) => text::text_column(column, columns),
            Self::Template(template) => text::render(template, columns),
            Self::Instruction { instruction, input } => {
                let instruction = text::text_column(instruction, columns)?;
                let input = match input {
                    Some(name) => match columns.get(name).filter(|value| !value.is_null()) {
                        Some(value) => text::plain(name, value)?,
                        None => String::new(),
                    },
                    None => String::new(),
                };
                Ok(match (instruction.trim().is_empty(), input.is_empty()) {
                    (_, true) => instruction,
                    (true, false) => input,
                    (false, false) => format!("{instruction}\n\n{input}"),
                })
            }
        }
    }
}

/// The instruction of a row with its input, under the names of the recipe or the usual ones.
fn instruction(named: &Columns, columns: &Map<String, Value>) -> Field {
    let usual = || INPUTS.iter().find(|name| columns.contains_key(**name));
    Field::Instruction {
        instruction: pick(named.instruction.as_ref(), &["instruction"], columns),
        input: named.input.clone().or_else(|| usual().map(|name| (*name).to_owned())),
    }
}

fn pick(named: Option<&String>, usual: &[&str], columns: &Map<String, Value>) -> String {
    let found = usual.iter().find(|name| columns.contains_key(**name));
    let fallback = found.or(usual.first()).copied().unwrap_or_default();
    named.cloned().unwrap_or_else(|| fallback.to_owned())
}
