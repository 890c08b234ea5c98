//! What can go wrong between a foreign file and a batch, with what to do about it.
//!
//! It deliberately separates a bad row, which a recipe may skip and count, from a bad file or a bad
//! request, which always stop.

use std::path::{Path, PathBuf};

use crate::location::Location;
use crate::row_problem::RowProblem;

/// The result of anything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, place first.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One row cannot be used; `on_bad_row = "skip"` leaves such rows out.
    #[error("{location}: {problem}")]
    Row {
        /// Where the row stands.
        location: Location,
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
    PatternMatchesNothing {
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
    EmptyDirectory {
        /// The folder.
        path: PathBuf,
    },
    /// A folder holds files of several formats and the recipe names none.
    #[error("{}: files of several formats in this folder: {formats}", path.display())]
    MixedFormats {
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
    /// `where` fits no row.
    #[error("{source_path}: `where` leaves none of its {n_rows} rows")]
    FilterMatchesNothing {
        /// The source as the recipe writes it.
        source_path: String,
        /// How many rows there are.
        n_rows: u64,
    },
    /// No row can be on one side of the pairs that are to be drawn.
    #[error("{source_path}: none of its {n_rows} rows fits `{label}` alone")]
    EmptyPool {
        /// The source as the recipe writes it.
        source_path: String,
        /// `chosen` or `rejected`.
        label: &'static str,
        /// How many rows there are.
        n_rows: u64,
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
    #[error("{location}: cannot tell how to read these columns: {columns}")]
    UnknownRowFormat {
        /// The first row.
        location: Location,
        /// Its columns.
        columns: String,
        /// What the stage needs.
        hint: &'static str,
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
    #[error("holdout = {fraction} leaves no {split} rows: {n_rows} rows in all")]
    EmptySplit {
        /// The holdout asked for.
        fraction: f64,
        /// `training` or `validation`.
        split: &'static str,
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

impl Error {
    /// A bad row.
    pub(crate) fn row(location: Location, problem: RowProblem) -> Self {
        Self::Row { location, problem }
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
            Self::Row { location, problem } => Some(problem.hint(location)),
            Self::TooManyBadRows { .. } | Self::AllRowsBad { .. } => {
                Some("repair the file, or raise `max_bad_rows`".into())
            }
            Self::NotFound { nearest, .. } => Some(match nearest {
                Some(name) => format!("a similar name there: `{name}`"),
                None => "a relative path is looked for beside the recipe, a `data:` path under \
                         the data directory (--data-dir, TEMPER_DATA, `data_dir`)"
                    .into(),
            }),
            Self::PatternMatchesNothing { .. } => {
                Some("`*` matches within one folder, `**` over folders".into())
            }
            Self::BadPath { .. } => {
                Some("name a file, a folder or a pattern, relative to the recipe".into())
            }
            Self::EmptyDirectory { .. } | Self::UnknownFormat { .. } => Some(format!(
                "known endings: {}, each also with .gz or .zst; `format` in the source names one",
                crate::formats::KNOWN_ENDINGS
            )),
            Self::MixedFormats { .. } => Some("name one with `format` in the source".into()),
            Self::Io { .. } => None,
            Self::EmptyFile { .. } | Self::NoRows { .. } => {
                Some("remove it from the source's `path`, or fill it".into())
            }
            Self::FilterMatchesNothing { .. } | Self::EmptyPool { .. } => Some(
                "values are compared as they stand in the file: `temper data inspect FILE --line 1` \
                 shows a row"
                    .into(),
            ),
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
            Self::UnknownRowFormat { hint, .. } => Some((*hint).into()),
            Self::BadSource { .. } => None,
            Self::TokenizerUse { source } => source.hint(),
            Self::ReaderFailed => Some("this is a bug in Temper: please report it".into()),
            Self::Fs(source) => source.hint(),
            Self::NoEndToken => Some(
                "name one as `eos_token` in tokenizer_config.json, or train a tokenizer with \
                 `special_tokens`"
                    .into(),
            ),
            Self::EmptySplit { .. } => Some(
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
