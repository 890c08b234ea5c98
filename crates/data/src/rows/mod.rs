//! From the columns of a row to documents, chats, pairs or prompts, as text. Chat templates belong to the tokenizer.

mod context;
mod ids;
mod label_pools;
mod left_out;
mod message;
mod pair;
mod prompt;
mod row_columns;
mod text;
mod tree;
mod where_filter;

use recipe::{ChatTargets, Learn, RoleName, RowLayout, SampleKind, Template};
use serde_json::Value;
use tokenizer::{Message, Role};

use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::row_problem::RowProblem;
use crate::source::{Row, json_kind};

use context::ContextColumns;
use message::{MessageReader, is_empty};
use row_columns::RowColumns;

pub(crate) use ids::IdRow;
pub(crate) use label_pools::{Label, PoolEntry, PoolText};
pub use message::{known_roles, target_flags};
pub(crate) use pair::Pair;
pub(crate) use row_columns::FormatRequest;
pub use row_columns::usual_columns;
pub(crate) use text::{chat_hash, short_hash, text_hash};
pub(crate) use where_filter::matches_filter;

type Checked<T> = std::result::Result<T, RowProblem>;

/// Columns that a model of texts cannot read.
pub const UNREADABLE_COLUMNS: [&str; 6] = ["image", "images", "audio", "audios", "video", "videos"];

/// One chat of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chat {
    pub(crate) dialogue: Dialogue,
    /// Hash that decides the split: all chats of a tree or of one conversation share it.
    pub(crate) group: Option<u64>,
    /// Whether only the last message is a target, with the context as the template writes it then.
    pub(crate) last_turn_only: bool,
}

/// Layout of a source's rows, detected once from the recipe and the first row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RowFormat {
    columns: RowColumns,
    context: ContextColumns,
    /// Column that says whether a completion is desirable.
    label: Option<String>,
    reader: MessageReader,
    /// Texts that are stored next to a prompt.
    answers: Vec<Template>,
    /// Assistant messages of a chat that are targets.
    pub(crate) targets: ChatTargets,
}

impl RowFormat {
    /// Detects the row format of a source from its keys and its first row.
    pub(crate) fn detect(
        request: FormatRequest<'_>,
        kind: SampleKind,
        first: &Row,
    ) -> Result<Self> {
        let columns = RowColumns::detect(request, kind, first)?;
        let is_chat = kind != SampleKind::Documents;
        let is_ignored = |name: &str| request.ignored.iter().any(|ignored| ignored == name);
        let unreadable = UNREADABLE_COLUMNS.into_iter().find(|name| {
            first.columns.get(*name).is_some_and(|value| !is_empty(value)) && !is_ignored(name)
        });
        if let Some(column) = unreadable.filter(|_| is_chat) {
            return Err(Error::UnreadableColumn { location: first.location.clone(), column });
        }
        let with_history = matches!(
            columns,
            RowColumns::PromptCompletion { .. } | RowColumns::Pair { .. } | RowColumns::Prompt(_)
        );
        let has_context = is_chat
            && match columns {
                RowColumns::PromptCompletion { .. }
                | RowColumns::Messages { .. }
                | RowColumns::Pair { .. }
                | RowColumns::Prompt(_) => request.rows.is_none(),
                RowColumns::Text(_)
                | RowColumns::Ids(_)
                | RowColumns::Tree { .. }
                | RowColumns::Pool(_) => false,
            };
        let named = request.columns.cloned().unwrap_or_default();
        let context = if has_context {
            ContextColumns::detect(&named, &first.columns, request.ignored, with_history)
        } else {
            ContextColumns::default()
        };
        let label = match columns {
            RowColumns::PromptCompletion { .. } if request.rows.is_none() => {
                let is_label = |name: &&str| {
                    first.columns.get(*name).is_some_and(Value::is_boolean) && !is_ignored(name)
                };
                let usual = ["label"].into_iter().find(is_label).map(str::to_owned);
                let is_kto = request.layout == RowLayout::Kto || kind == SampleKind::Completions;
                named.label.clone().or(usual).or_else(|| is_kto.then(|| "label".to_owned()))
            }
            RowColumns::PromptCompletion { .. }
            | RowColumns::Text(_)
            | RowColumns::Messages { .. }
            | RowColumns::Ids(_)
            | RowColumns::Tree { .. }
            | RowColumns::Pair { .. }
            | RowColumns::Pool(_)
            | RowColumns::Prompt(_) => None,
        };
        let role = |name: &RoleName| match name {
            RoleName::System => Role::System,
            RoleName::User => Role::User,
            RoleName::Assistant => Role::Assistant,
            RoleName::Tool => Role::Tool,
        };
        let reader = MessageReader {
            roles: request.roles.iter().map(|(name, to)| (name.clone(), role(to))).collect(),
            ignored: request.ignored.to_vec(),
        };
        let (answers, targets) = (request.answers.to_vec(), ChatTargets::default());
        Ok(Self { columns, context, label, reader, answers, targets })
    }

    /// Whether pairs are drawn from rows of one labelled text.
    pub(crate) fn is_pool(&self) -> bool {
        matches!(self.columns, RowColumns::Pool(_))
    }

    /// Name of the layout, for people.
    pub(crate) fn name(&self) -> &'static str {
        if self.label.is_some() { "prompt, completion and label" } else { self.columns.name() }
    }

    /// Whether rows are token ids.
    pub(crate) fn has_ids(&self) -> bool {
        matches!(self.columns, RowColumns::Ids(_))
    }

    /// Token ids of a row, with its loss mask if it has one.
    pub(crate) fn ids_of(&self, row: &Row) -> Checked<IdRow> {
        match &self.columns {
            RowColumns::Ids(columns) => columns.read(&row.columns),
            RowColumns::Text(_)
            | RowColumns::PromptCompletion { .. }
            | RowColumns::Messages { .. }
            | RowColumns::Tree { .. }
            | RowColumns::Pair { .. }
            | RowColumns::Pool(_)
            | RowColumns::Prompt(_) => Err(RowProblem::NoMessages),
        }
    }

    /// Whether a row's completion is desirable; true without a column of labels.
    pub(crate) fn is_desirable(&self, row: &Row) -> Checked<bool> {
        let Some(name) = &self.label else { return Ok(true) };
        let value = text::column(name, &row.columns)?;
        let number = value.as_i64().filter(|number| matches!(number, 0 | 1));
        value.as_bool().or(number.map(|number| number == 1)).ok_or_else(|| RowProblem::WrongType {
            column: name.clone(),
            found: json_kind(value),
            expected: "true or false",
        })
    }

    /// Columns that this format reads; `None` if it reads the whole row.
    pub(crate) fn columns(&self) -> Option<Vec<String>> {
        let mut names = self.columns.names()?;
        names.extend(self.context.names().chain(&self.label).cloned());
        names.extend(self.answers.iter().flat_map(Template::columns).map(str::to_owned));
        Some(names)
    }

    /// Text of a row's document.
    pub(crate) fn document_of(&self, row: &Row) -> Checked<String> {
        if let RowColumns::Text(field) = &self.columns {
            return field.read(&row.columns);
        }
        Err(RowProblem::NoMessages)
    }

    /// The chosen and the rejected conversation of a row.
    pub(crate) fn pair_of(&self, row: &Row) -> Checked<Pair> {
        let RowColumns::Pair { prompt, chosen, rejected, .. } = &self.columns else {
            return Err(RowProblem::NoMessages);
        };
        let [chosen, rejected] =
            pair::read(prompt.as_ref(), chosen, rejected, &self.reader, &row.columns)?;
        Ok([self.dialogue(chosen, row)?, self.dialogue(rejected, row)?])
    }

    /// The answers of a row, each with its label: one, or those of a pair, whose chosen one is desirable.
    pub(crate) fn completions_of(&self, row: &Row) -> Checked<Vec<(Label, Dialogue)>> {
        match &self.columns {
            RowColumns::Pair { .. } => {
                let [chosen, rejected] = self.pair_of(row)?;
                Ok(vec![(Label::Chosen, chosen), (Label::Rejected, rejected)])
            }
            RowColumns::PromptCompletion { prompt, completion } => {
                let label = if self.is_desirable(row)? { Label::Chosen } else { Label::Rejected };
                let messages =
                    pair::answered_prompt(prompt, completion, &self.reader, &row.columns)?;
                Ok(vec![(label, self.dialogue(messages, row)?)])
            }
            RowColumns::Text(_)
            | RowColumns::Messages { .. }
            | RowColumns::Ids(_)
            | RowColumns::Tree { .. }
            | RowColumns::Pool(_)
            | RowColumns::Prompt(_) => Err(RowProblem::NoMessages),
        }
    }

    /// Margin of a pair, if the recipe names a column for it.
    pub(crate) fn margin_of(&self, row: &Row) -> Checked<Option<f32>> {
        if let RowColumns::Pair { margin: Some(column), .. } = &self.columns {
            return text::number_column(column, &row.columns).map(Some);
        }
        Ok(None)
    }

    /// Label and text of a row that pairs are drawn from.
    pub(crate) fn pool_entry(&self, row: &Row) -> Checked<PoolEntry> {
        if let RowColumns::Pool(pairs) = &self.columns {
            return label_pools::read(pairs, &row.columns);
        }
        Err(RowProblem::NoMessages)
    }

    /// Conversation of a row without its final answer.
    pub(crate) fn prompt_of(&self, row: &Row) -> Checked<Dialogue> {
        let messages = match &self.columns {
            RowColumns::Prompt(field) => pair::prompt_messages(field, &self.reader, &row.columns)?,
            RowColumns::Messages { column } => {
                self.reader.messages(column, text::column(column, &row.columns)?)?
            }
            RowColumns::Text(_)
            | RowColumns::PromptCompletion { .. }
            | RowColumns::Ids(_)
            | RowColumns::Tree { .. }
            | RowColumns::Pair { .. }
            | RowColumns::Pool(_) => return Err(RowProblem::NoMessages),
        };
        self.dialogue(prompt::without_answer(messages)?, row)
    }

    /// Texts of a row that are stored next to its prompt; `None` for a text with a missing or null column.
    pub(crate) fn answers_of(&self, row: &Row) -> Checked<Vec<Option<String>>> {
        let is_present = |name: &str| row.columns.get(name).is_some_and(|value| !value.is_null());
        let answer = |template: &Template| {
            let is_complete = template.columns().all(is_present);
            is_complete.then(|| text::render(template, &row.columns)).transpose()
        };
        self.answers.iter().map(answer).collect()
    }

    /// Chats of a row: one, or one per assistant message of a tree.
    pub(crate) fn chats_of(&self, row: &Row) -> Checked<Vec<Chat>> {
        let columns = &row.columns;
        let messages = match &self.columns {
            RowColumns::Text(_)
            | RowColumns::Ids(_)
            | RowColumns::Pair { .. }
            | RowColumns::Pool(_)
            | RowColumns::Prompt(_) => return Err(RowProblem::NoMessages),
            RowColumns::PromptCompletion { prompt, completion } => {
                pair::prompt_and_completion(prompt, completion, &self.reader, columns)?
            }
            RowColumns::Messages { column } => {
                self.reader.messages(column, text::column(column, columns)?)?
            }
            RowColumns::Tree { root } => {
                let chats = match root {
                    Some(column) => {
                        tree::chats_in(column, text::column(column, columns)?, &self.reader.roles)?
                    }
                    None => tree::chats(columns, &self.reader.roles)?,
                };
                return Ok(chats.into_iter().flat_map(|chat| self.with_targets(chat)).collect());
            }
        };
        let dialogue = self.dialogue(messages, row)?;
        Ok(self.with_targets(Chat { dialogue, group: None, last_turn_only: false }))
    }

    fn dialogue(&self, messages: Vec<Message>, row: &Row) -> Checked<Dialogue> {
        self.context.add_to(messages, &row.columns)
    }

    /// The chat with the targets that the recipe asks for, in one sample or in one per turn.
    fn with_targets(&self, mut chat: Chat) -> Vec<Chat> {
        let messages = &mut chat.dialogue.messages;
        let is_answer = |message: &Message| message.role == Role::Assistant;
        if self.targets.learn == Learn::Last {
            let last = messages.iter().rposition(is_answer);
            for (idx, message) in messages.iter_mut().enumerate() {
                message.is_target &= Some(idx) == last;
            }
        }
        if !self.targets.split_turns {
            return vec![chat];
        }
        let group = chat.group.unwrap_or_else(|| chat_hash(&chat.dialogue));
        let turns = chat.dialogue.messages.iter().enumerate();
        let turns = turns.filter(|(_, message)| is_answer(message) && message.is_target);
        turns
            .map(|(idx, _)| {
                let messages = chat.dialogue.messages.iter().take(idx + 1).cloned().collect();
                let dialogue = Dialogue { messages, tools: chat.dialogue.tools.clone() };
                Chat { dialogue, group: Some(group), last_turn_only: true }
            })
            .collect()
    }
}
