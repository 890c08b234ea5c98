//! Rows of one text each that pairs are drawn from: which side a row is on, by what stands in its columns.
//!
//! It deliberately draws nothing: who stands beside whom is the dataset's.

use recipe::{ColumnValues, DrawnPairs, Piece, Template};
use serde_json::{Map, Value};
use tokenizer::{Message, Role};

use crate::row_problem::RowProblem;
use crate::rows::{matches_filter, text};

type Checked<T> = std::result::Result<T, RowProblem>;

/// A side of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Label {
    /// The better text.
    Chosen = 0,
    /// The worse one.
    Rejected = 1,
}

/// What a row is to the pairs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PoolEntry {
    /// It fits neither side.
    Neither,
    /// It fits both, so it says nothing.
    Both,
    /// It has no text.
    Empty,
    /// A text of one side.
    Text(Label, PoolText),
}

/// A text of a pool.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PoolText {
    /// The text by itself: by it the row is held out.
    pub(crate) text: String,
    /// The conversation that is scored: the prompt, where there is one, and the text as its answer.
    pub(crate) messages: Vec<Message>,
}

/// The columns that are read.
pub(crate) fn add_columns(pairs: &DrawnPairs, names: &mut Vec<String>) {
    names.push(pairs.from.clone());
    let sides = [&pairs.chosen, &pairs.rejected].into_iter().flat_map(ColumnValues::entries);
    names.extend(sides.map(|(column, _)| column.to_owned()));
}

/// A row of the pools.
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
    let messages = prompt.chain([Message::new(Role::Assistant, text.clone())]).collect();
    Ok(PoolEntry::Text(label, PoolText { text, messages }))
}

/// The text of a template that names no column, as the recipe has checked.
fn constant(template: &Template) -> String {
    let texts = template.pieces().iter().filter_map(|piece| match piece {
        Piece::Text(text) => Some(text.as_str()),
        Piece::Column(_) => None,
    });
    texts.collect()
}
