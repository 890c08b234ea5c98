//! Labelled texts, from which pairs are drawn: the columns of a row decide its label. The dataset draws the pairs.

use recipe::{ColumnValues, DrawnPairs, Piece, Template};
use serde_json::{Map, Value};
use tokenizer::{Message, Role};

use crate::dialogue::Dialogue;
use crate::row_problem::RowProblem;
use crate::rows::{matches_filter, text};

type Checked<T> = std::result::Result<T, RowProblem>;

/// Label of a text: the pool that it belongs to, or whether an answer is desirable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Label {
    /// Better text of a pair, or a desirable answer.
    Chosen = 0,
    /// Worse text of a pair, or an undesirable answer.
    Rejected = 1,
}

/// Label and text of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PoolEntry {
    /// The row matches neither label.
    Neither,
    /// The row matches both labels, so it has none.
    Both,
    /// The row has a label but no text.
    Empty,
    /// A text with its label.
    Text(Label, PoolText),
}

/// A text of a pool.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PoolText {
    /// The text alone; its hash decides the split.
    pub(crate) text: String,
    /// Conversation that is scored: the prompt, if there is one, and the text as its answer.
    pub(crate) dialogue: Dialogue,
}

/// Adds the columns that are read.
pub(crate) fn add_columns(pairs: &DrawnPairs, names: &mut Vec<String>) {
    names.push(pairs.from.clone());
    let sides = [&pairs.chosen, &pairs.rejected].into_iter().flat_map(ColumnValues::entries);
    names.extend(sides.map(|(column, _)| column.to_owned()));
}

/// Reads the label and the text of a row.
pub(crate) fn read(pairs: &DrawnPairs, columns: &Map<String, Value>) -> Checked<PoolEntry> {
    let label = match (
        matches_filter(&pairs.chosen, columns)?,
        matches_filter(&pairs.rejected, columns)?,
    ) {
        (true, false) => Label::Chosen,
        (false, true) => Label::Rejected,
        (true, true) => return Ok(PoolEntry::Both),
        (false, false) => return Ok(PoolEntry::Neither),
    };
    let text = text::text_column(&pairs.from, columns)?;
    if text.trim().is_empty() {
        return Ok(PoolEntry::Empty);
    }
    let prompt = pairs.prompt.iter().map(|prompt| Message::new(Role::User, constant(prompt)));
    let messages: Vec<Message> =
        prompt.chain([Message::new(Role::Assistant, text.clone())]).collect();
    Ok(PoolEntry::Text(label, PoolText { text, dialogue: messages.into() }))
}

/// Text of a template without columns; the recipe has checked that there are none.
fn constant(template: &Template) -> String {
    let texts = template.pieces().iter().filter_map(|piece| match piece {
        Piece::Text(text) => Some(text.as_str()),
        Piece::Column(_) => None,
    });
    texts.collect()
}
