//! What can be wrong with one row, which a recipe may skip and count.
//!
//! It deliberately knows nothing of files: a place is named by the error around it.

use crate::place::Place;

/// What is wrong with one row.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RowProblem {
    /// The text is not JSON.
    #[error("invalid JSON at column {column}: {reason}")]
    Json {
        /// Column, from 1, counted in bytes.
        column: usize,
        /// The parser's reason.
        reason: String,
    },
    /// The JSON value is not an object.
    #[error("row is {found}, not an object")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// The bytes are not UTF-8.
    #[error("invalid UTF-8 at byte {offset} of the file")]
    Utf8 {
        /// Offset in the file, after decompression, from 0.
        offset: u64,
    },
    /// A field of a row is not UTF-8.
    #[error("column `{column}` is not UTF-8 text")]
    ColumnUtf8 {
        /// The column.
        column: String,
    },
    /// The row is longer than the limit.
    #[error("row is longer than the limit of {limit} bytes")]
    TooLong {
        /// The limit.
        limit: u64,
    },
    /// The JSON is nested too deeply.
    #[error("JSON is nested deeper than {limit} levels")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// A CSV record has another number of fields than the header.
    #[error("{found} fields where the header has {expected}")]
    FieldCount {
        /// Fields in this record.
        found: usize,
        /// Fields in the header.
        expected: usize,
    },
    /// A column is not there.
    #[error("no column `{column}`; columns: {columns}")]
    MissingColumn {
        /// The column asked for.
        column: String,
        /// Those there are.
        columns: String,
        /// The one whose name is nearest.
        nearest: Option<String>,
    },
    /// A column holds another kind of value.
    #[error("column `{column}` holds {found}, expected {expected}")]
    WrongType {
        /// The column.
        column: String,
        /// What it holds.
        found: &'static str,
        /// What was expected.
        expected: &'static str,
    },
    /// A message's role is not known.
    #[error("message {index} has role `{role}`; known roles: {known}")]
    UnknownRole {
        /// Which message, from 1.
        index: usize,
        /// The role as written.
        role: String,
        /// The roles there are.
        known: &'static str,
    },
    /// A message is not an object with a role and a content.
    #[error("message {index} {problem}")]
    BadMessage {
        /// Which message, from 1.
        index: usize,
        /// What is wrong.
        problem: String,
    },
    /// A tokenizer must take a text whole, and it is too long for that.
    #[error("text of more than {limit} bytes that this tokenizer cannot take in pieces")]
    Uncuttable {
        /// The limit.
        limit: u64,
    },
    /// A conversation or a tree is larger than the limit.
    #[error("more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A conversation or a tree holds no messages.
    #[error("conversation has no messages")]
    NoMessages,
    /// The tokenizer or the chat template refused this conversation.
    #[error("{reason}")]
    Encoding {
        /// Its reason.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl RowProblem {
    /// What to do next.
    pub(crate) fn hint(&self, place: &Place) -> String {
        let skip =
            "`on_bad_row = \"skip\"` in the stage's section leaves such rows out and counts them";
        match self {
            Self::MissingColumn { nearest: Some(name), .. } => {
                format!("a similar column: `{name}`")
            }
            Self::MissingColumn { .. } => {
                "name the columns with `text`, `columns` or `rows` in the source".into()
            }
            Self::Utf8 { .. } | Self::ColumnUtf8 { .. } => {
                format!("convert the file to UTF-8; {skip}")
            }
            Self::UnknownRole { .. } => format!(
                "`temper data inspect {} --line {}` shows it; {skip}",
                place.file.display(),
                place.position.number()
            ),
            Self::Uncuttable { .. } => {
                "write the text as JSON lines, a chapter or a page a line".into()
            }
            Self::Encoding { hint: Some(hint), .. } => hint.clone(),
            Self::Json { .. }
            | Self::NotAnObject { .. }
            | Self::TooLong { .. }
            | Self::TooDeep { .. }
            | Self::FieldCount { .. }
            | Self::WrongType { .. }
            | Self::BadMessage { .. }
            | Self::TooMany { .. }
            | Self::NoMessages
            | Self::Encoding { hint: None, .. } => skip.into(),
        }
    }
}

/// Backticked names joined by commas, at most 20 of them.
pub(crate) fn name_list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 20;
    let all: Vec<&str> = names.collect();
    let mut list: Vec<String> = all.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    if all.is_empty() {
        return "none".into();
    }
    if all.len() > SHOWN {
        list.push(format!("and {} more", all.len() - SHOWN));
    }
    list.join(", ")
}

/// The candidate nearest to a name, if any is near enough to be a slip of the pen.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|candidate| {
            (strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase()), candidate)
        })
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}
