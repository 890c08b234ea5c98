//! What can go wrong between a foreign file and a batch, with what to do about it.
//!
//! It deliberately separates a bad row, which a recipe may skip and count, from a bad file or a bad
//! request, which always stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::place::Place;

/// The result of anything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, place first.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One row cannot be used; `on_bad_row = "skip"` leaves such rows out.
    #[error("{place}: {problem}")]
    Row {
        /// Where the row stands.
        place: Place,
        /// What is wrong with it.
        problem: RowProblem,
    },
    /// More rows were skipped than the recipe allows.
    #[error("{n_bad} bad rows, more than the {cap} that max_bad_rows allows; the first: {first}")]
    TooManyBadRows {
        /// Rows skipped so far.
        n_bad: u64,
        /// The recipe's limit.
        cap: u64,
        /// The first bad row's message.
        first: String,
    },
    /// A file or folder is not there.
    #[error("no such file or folder: `{}`", path.display())]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
        /// A name in the same folder that looks alike.
        nearest: Option<String>,
    },
    /// A pattern matches no file.
    #[error("no file matches: `{pattern}`")]
    NothingMatches {
        /// The pattern, resolved.
        pattern: String,
    },
    /// A source's path cannot be used.
    #[error("{problem}: `{path}`")]
    BadPath {
        /// The path as written.
        path: String,
        /// Why not.
        problem: &'static str,
    },
    /// A folder holds no data file.
    #[error("{}: no data files in this folder", path.display())]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A folder holds files of several formats and the recipe names none.
    #[error("{}: files of several formats in this folder: {formats}", path.display())]
    MixedFolder {
        /// The folder.
        path: PathBuf,
        /// The formats found.
        formats: String,
    },
    /// A file's name says nothing about its format.
    #[error("{}: unknown format", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its reason.
        source: std::io::Error,
    },
    /// A file has no bytes, or none but white space.
    #[error("{}: file is empty", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// A source gave no row at all.
    #[error("{source_path}: no rows")]
    NoRows {
        /// The source as the recipe writes it.
        source_path: String,
    },
    /// Every row of a source was bad.
    #[error("{source_path}: all {n_bad} rows are bad; the first: {first}")]
    AllRowsBad {
        /// The source as the recipe writes it.
        source_path: String,
        /// How many there are.
        n_bad: u64,
        /// The first bad row's message.
        first: String,
    },
    /// A file is damaged or not what its name says.
    #[error("{}: {reason}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file asks for more memory than the limits allow.
    #[error("{}: {what} over the limit of {limit}: `{value}`", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is too large.
        what: &'static str,
        /// Its size.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// A `rows` template does not parse.
    #[error("{problem} in template: `{template}`")]
    BadTemplate {
        /// The template.
        template: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The columns give no clue how to read the rows.
    #[error("{place}: cannot tell how to read these columns: {columns}")]
    UnknownLayout {
        /// The first row.
        place: Place,
        /// Its columns.
        columns: String,
        /// What the stage needs.
        wanted: &'static str,
    },
    /// The source's keys contradict each other or the stage.
    #[error("{source_path}: {problem}")]
    BadSource {
        /// The source as the recipe writes it.
        source_path: String,
        /// What is wrong.
        problem: String,
    },
    /// The tokenizer failed, whatever the row.
    #[error(transparent)]
    TokenizerUse {
        /// Its reason.
        source: tokenizer::Error,
    },
    /// The thread that reads a source failed.
    #[error("the reader of the source failed")]
    ReaderFailed,
    /// A file could not be written or read back.
    #[error(transparent)]
    Fs(#[from] fsio::Error),
    /// A tokenizer lacks what packing needs.
    #[error("the tokenizer has no end-of-text token")]
    NoEndToken,
    /// The split leaves nothing on one side.
    #[error("holdout = {fraction} leaves no {side} rows: {n_rows} rows in all")]
    EmptySide {
        /// The holdout asked for.
        fraction: f64,
        /// `training` or `validation`.
        side: &'static str,
        /// Rows before the split.
        n_rows: u64,
    },
    /// Nothing is left to train on.
    #[error("no sample has a target at sequence_length = {sequence_length}")]
    NoTargets {
        /// The row length.
        sequence_length: usize,
    },
    /// No limit says when the stage ends, or the limits leave no step.
    #[error("the stage has no steps: {problem}")]
    NoSteps {
        /// Why.
        problem: &'static str,
    },
}

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

impl Error {
    /// A bad row.
    pub(crate) fn row(place: Place, problem: RowProblem) -> Self {
        Self::Row { place, problem }
    }

    /// An operating-system error on a file.
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }

    /// A damaged file.
    pub(crate) fn bad_file(path: &Path, reason: impl Into<String>) -> Self {
        Self::BadFile { path: path.to_path_buf(), reason: reason.into() }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Row { place, problem } => Some(row_hint(place, problem)),
            Self::TooManyBadRows { .. } | Self::AllRowsBad { .. } => {
                Some("repair the file, or raise `max_bad_rows`".into())
            }
            Self::NotFound { nearest, .. } => Some(match nearest {
                Some(name) => format!("a similar name there: `{name}`"),
                None => "a relative path is looked for beside the recipe, a `data:` path under \
                         the data directory (--data-dir, TEMPER_DATA, `data_dir`)"
                    .into(),
            }),
            Self::NothingMatches { .. } => {
                Some("`*` matches within one folder, `**` over folders".into())
            }
            Self::BadPath { .. } => {
                Some("name a file, a folder or a pattern, relative to the recipe".into())
            }
            Self::EmptyFolder { .. } | Self::UnknownFormat { .. } => Some(format!(
                "known endings: {}, each also with .gz or .zst; `format` in the source names one",
                crate::source::KNOWN_ENDINGS
            )),
            Self::MixedFolder { .. } => Some("name one with `format` in the source".into()),
            Self::Io { .. } => None,
            Self::EmptyFile { .. } | Self::NoRows { .. } => {
                Some("remove it from the source's `path`, or fill it".into())
            }
            Self::BadFile { .. } => Some("make or copy the file anew".into()),
            Self::TooLarge { .. } => Some(
                "limits keep a damaged or hostile file from taking the machine down; write the \
                 data as JSON lines or with smaller pages"
                    .into(),
            ),
            Self::BadTemplate { .. } => Some(
                "`{column}` stands for a column's value; write `{{` and `}}` for plain braces"
                    .into(),
            ),
            Self::UnknownLayout { wanted, .. } => Some((*wanted).into()),
            Self::BadSource { .. } => None,
            Self::TokenizerUse { source } => source.hint(),
            Self::ReaderFailed => Some("this is a bug in Temper: please report it".into()),
            Self::Fs(source) => source.hint(),
            Self::NoEndToken => Some(
                "name one as `eos_token` in tokenizer_config.json, or train a tokenizer with \
                 `special_tokens`"
                    .into(),
            ),
            Self::EmptySide { .. } => Some(
                "a split by content needs several rows: use `by = \"position\"`, or another \
                 `holdout`"
                    .into(),
            ),
            Self::NoTargets { .. } => Some(
                "raise `sequence_length`, or look at the rows with `temper data inspect`".into(),
            ),
            Self::NoSteps { .. } => {
                Some("set `max_steps`, `epochs` or `max_tokens` in the stage's section".into())
            }
        }
    }
}

fn row_hint(place: &Place, problem: &RowProblem) -> String {
    let skip =
        "`on_bad_row = \"skip\"` in the stage's section leaves such rows out and counts them";
    match problem {
        RowProblem::MissingColumn { nearest: Some(name), .. } => {
            format!("a similar column: `{name}`")
        }
        RowProblem::MissingColumn { .. } => {
            "name the columns with `text`, `columns` or `rows` in the source".into()
        }
        RowProblem::Utf8 { .. } | RowProblem::ColumnUtf8 { .. } => {
            format!("convert the file to UTF-8; {skip}")
        }
        RowProblem::UnknownRole { .. } => format!(
            "`temper data inspect {} --line {}` shows it; {skip}",
            place.file.display(),
            place.position.number()
        ),
        RowProblem::Encoding { hint: Some(hint), .. } => hint.clone(),
        _ => skip.into(),
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

/// A path shared by every place in a file.
pub(crate) fn shared_path(path: &Path) -> Arc<Path> {
    Arc::from(path)
}
