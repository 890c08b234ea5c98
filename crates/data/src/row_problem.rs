//! Problems of one row, which a recipe may skip and count.

use crate::location::Location;

/// Problem of one row. The error that contains it adds the location.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RowProblem {
    /// The row is not valid JSON.
    #[error("invalid JSON at column {column}: {reason}")]
    Json {
        /// Column, from 1, counted in bytes.
        column: usize,
        /// Message of the JSON parser.
        reason: String,
    },
    /// The JSON value is not an object.
    #[error("row is {found}, not an object")]
    NotAnObject {
        /// Kind of the value.
        found: &'static str,
    },
    /// The bytes are not UTF-8.
    #[error("invalid UTF-8 at byte {offset} of the file")]
    Utf8 {
        /// Offset in the file, after decompression, from 0.
        offset: u64,
    },
    /// A column of the row is not UTF-8.
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
    /// A text of the row, from the file or made by a template, is longer than the limit of every source.
    #[error("a text of the row is longer than {limit} bytes")]
    LongText {
        /// The limit.
        limit: u64,
    },
    /// The JSON is nested too deeply.
    #[error("JSON is nested deeper than {limit} levels")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// The parsed JSON would need too much memory.
    #[error("the values of this row need more than {limit} bytes of memory")]
    TooManyValues {
        /// The limit, in bytes.
        limit: u64,
    },
    /// A CSV file ends within a quoted field.
    #[error("a quoted field that does not end: the rest of the file is in it")]
    UnclosedQuote,
    /// A CSV record has text between a closing quote and the end of the field.
    #[error("text behind a closing quote: the row may be two, joined by stray quotes")]
    BehindQuote,
    /// A CSV record has another number of fields than the header.
    #[error("{found} fields where the header has {expected}")]
    FieldCount {
        /// Fields in this record.
        found: usize,
        /// Fields in the header.
        expected: usize,
    },
    /// A column does not exist.
    #[error("no column `{column}`; columns: {columns}")]
    MissingColumn {
        /// The missing column.
        column: String,
        /// The existing columns.
        columns: String,
        /// The existing column with the most similar name.
        nearest: Option<String>,
    },
    /// A column has a value of the wrong type.
    #[error("column `{column}` is {found}, expected {expected}")]
    WrongType {
        /// The column.
        column: String,
        /// Type of the value.
        found: &'static str,
        /// Expected type.
        expected: &'static str,
    },
    /// A column has an integer that the parser would round.
    #[error("column `{column}` has an integer of more than 64 bits, which would be rounded")]
    LongInteger {
        /// The column.
        column: String,
    },
    /// A map of a column has a key twice, of which one value would be lost.
    #[error("column `{column}` has a map with the key `{key}` twice")]
    MapKeyTwice {
        /// The column.
        column: String,
        /// The key.
        key: String,
    },
    /// A list has another length than the token ids.
    #[error("column `{column}` has {found} values, but `input_ids` has {expected}")]
    Lengths {
        /// The column.
        column: String,
        /// Number of its values.
        found: usize,
        /// Number of token ids.
        expected: usize,
    },
    /// A label is neither -100 nor the token's id.
    #[error(
        "label `{label}` of token {at}, whose id is `{id}`: labels must equal the ids or be -100"
    )]
    Label {
        /// Index of the token, from 0.
        at: usize,
        /// The label.
        label: i64,
        /// Id of the token.
        id: i64,
    },
    /// A token id is not in the vocabulary.
    #[error("token {at} has the id `{id}`, which is not in the vocabulary{}", n_tokens.map_or_else(String::new, |n| format!(" of {n} tokens")))]
    TokenId {
        /// Index of the token, from 0.
        at: usize,
        /// The id.
        id: i64,
        /// Number of tokens in the vocabulary.
        n_tokens: Option<usize>,
    },
    /// A token of a document is excluded from the loss.
    #[error(
        "`labels` or a mask exclude token {at} from the targets, but pretraining learns every token"
    )]
    MaskedDocument {
        /// Index of the token, from 0.
        at: usize,
    },
    /// The role of a message is unknown.
    #[error("message {index} has role `{role}`; known roles: {known}")]
    UnknownRole {
        /// Index of the message, from 1.
        index: usize,
        /// The role as written.
        role: String,
        /// Known roles.
        known: &'static str,
    },
    /// A column has a system prompt, and the messages begin with another.
    #[error("column `{column}` has a system prompt, and the messages begin with another one")]
    TwoSystemPrompts {
        /// The column.
        column: String,
    },
    /// A message is not an object with a role and a content.
    #[error("message {index} {problem}")]
    BadMessage {
        /// Index of the message, from 1.
        index: usize,
        /// The problem.
        problem: String,
    },
    /// The tokenizer cannot process a text in chunks, and the text is too long for one chunk.
    #[error("text of more than {limit} bytes, which this tokenizer cannot process in chunks")]
    Indivisible {
        /// The limit.
        limit: u64,
    },
    /// A conversation or a tree is larger than the limit.
    #[error("more than {limit} {what}")]
    TooMany {
        /// The items that are too many.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A conversation or a tree has no messages.
    #[error("conversation has no messages")]
    NoMessages,
    /// The tokenizer or the chat template rejected this conversation.
    #[error("{reason}")]
    Encoding {
        /// The reason.
        reason: String,
        /// A hint on what to do.
        hint: Option<String>,
    },
}

impl RowProblem {
    /// A hint on what to do.
    pub(crate) fn hint(&self, location: &Location) -> String {
        let skip = "`on_bad_row = \"skip\"` in the stage's section skips such rows and counts them";
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
            Self::UnknownRole { role, .. } => format!(
                "`roles = {{ {role:?} = \"system\" }}` in the source maps it; `temper data inspect {} --line {}` \
                 shows it; {skip}",
                location.file.display(),
                location.position.number()
            ),
            Self::Indivisible { .. } => {
                "write the text as JSON lines, one chapter or page per line".into()
            }
            Self::Encoding { hint: Some(hint), .. } => hint.clone(),
            Self::TokenId { .. } => {
                "the ids are of another tokenizer; use the one that made them".into()
            }
            Self::MaskedDocument { .. } => {
                "use [sft], or leave the column out with `ignore_columns` in the source".into()
            }
            Self::LongText { .. } => {
                format!("shorten the text, or a template that repeats a column; {skip}")
            }
            Self::UnclosedQuote | Self::BehindQuote => {
                format!(
                    "put a field with a quote in it into quotes and write that quote twice; {skip}"
                )
            }
            Self::LongInteger { .. } => format!("write it as a text in quotes; {skip}"),
            Self::TooLong { .. } | Self::TooManyValues { .. } => {
                format!("raise `max_row_bytes` in the source if such rows are right; {skip}")
            }
            Self::Json { .. }
            | Self::NotAnObject { .. }
            | Self::TooDeep { .. }
            | Self::FieldCount { .. }
            | Self::WrongType { .. }
            | Self::MapKeyTwice { .. }
            | Self::Lengths { .. }
            | Self::Label { .. }
            | Self::BadMessage { .. }
            | Self::TwoSystemPrompts { .. }
            | Self::TooMany { .. }
            | Self::NoMessages
            | Self::Encoding { hint: None, .. } => skip.into(),
        }
    }
}

/// Names in backticks, joined by commas; at most 20.
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

/// The candidate most similar to a name, if the name may be a misspelling of it.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|candidate| {
            (strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase()), candidate)
        })
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}
