//! Errors between a foreign file and a batch, with a hint on what to do.
//!
//! A bad row, which a recipe may skip and count, is a variant of its own; every other error stops the run.

use std::path::{Path, PathBuf};

use crate::formats::KNOWN_ENDINGS;
use crate::location::Location;
use crate::row_problem::RowProblem;

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Error of this crate. Messages start with the location.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One row cannot be used; `on_bad_row = "skip"` skips such rows.
    #[error("{location}: {problem}")]
    Row {
        /// Location of the row.
        location: Location,
        /// The problem.
        problem: RowProblem,
    },
    /// More rows were skipped than the recipe allows.
    #[error("{n_bad} bad rows, more than the {cap} that max_bad_rows allows; the first: {first}")]
    TooManyBadRows {
        /// Rows skipped so far.
        n_bad: u64,
        /// Limit of the recipe.
        cap: u64,
        /// Message of the first bad row.
        first: String,
    },
    /// A file or directory does not exist.
    #[error("no such file or directory: `{}`", path.display())]
    NotFound {
        /// The missing path.
        path: PathBuf,
        /// A similar path that exists.
        nearest: Option<PathBuf>,
        /// Advice if the path may be meant as a repository of the Hugging Face hub.
        get: Option<String>,
    },
    /// A data set of the Hugging Face hub without a usable copy on this machine.
    #[error(transparent)]
    Hub(#[from] hub_local::Error),
    /// A pattern matches no file.
    #[error("no file matches: `{pattern}`")]
    PatternMatchesNothing {
        /// The pattern, resolved.
        pattern: String,
    },
    /// The path of a source cannot be used.
    #[error("{problem}: `{path}`")]
    BadPath {
        /// The path as written.
        path: String,
        /// The problem.
        problem: &'static str,
    },
    /// A directory contains no data file.
    #[error("{}: no data files in this directory", path.display())]
    EmptyDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// A directory contains files of several formats and the recipe names none.
    #[error("{}: files of several formats in this directory: {formats}", path.display())]
    MixedFormats {
        /// The directory.
        path: PathBuf,
        /// The formats found.
        formats: String,
    },
    /// A directory whose files have the names of splits lacks the wanted one.
    #[error("{}: no split `{wanted}` in this directory; its splits: {found}", path.display())]
    NoSplit {
        /// The directory.
        path: PathBuf,
        /// The wanted split.
        wanted: String,
        /// Names of the splits.
        found: String,
    },
    /// A file of JSON lines contains one JSON array.
    #[error("{}: one JSON array, not one JSON object per line", path.display())]
    ArrayInLines {
        /// The file.
        path: PathBuf,
    },
    /// A JSON file has no list of rows under the key that the recipe names.
    #[error("{}: {problem}", path.display())]
    BadField {
        /// The file.
        path: PathBuf,
        /// The problem, with the key.
        problem: String,
    },
    /// The name of a file does not show its format.
    #[error("{}: unknown format", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// An input or output error of the operating system.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file has no bytes, or only white space.
    #[error("{}: file is empty", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// A source has no rows.
    #[error("{source_path}: no rows")]
    NoRows {
        /// The source as written in the recipe.
        source_path: String,
    },
    /// Every row of a source is bad.
    #[error("{source_path}: all {n_bad} rows are bad; the first: {first}")]
    AllRowsBad {
        /// The source as written in the recipe.
        source_path: String,
        /// Number of rows.
        n_bad: u64,
        /// Message of the first bad row.
        first: String,
    },
    /// `where` matches no row.
    #[error("{source_path}: `where` matches none of its {n_rows} rows")]
    FilterMatchesNothing {
        /// The source as written in the recipe.
        source_path: String,
        /// Number of rows.
        n_rows: u64,
    },
    /// No row has one of the two labels that pairs are drawn from.
    #[error("{source_path}: none of its {n_rows} rows matches `{label}` alone")]
    EmptyPool {
        /// The source as written in the recipe.
        source_path: String,
        /// `chosen` or `rejected`.
        label: &'static str,
        /// Number of rows.
        n_rows: u64,
    },
    /// A file is damaged, or its content differs from its name.
    #[error("{}: {reason}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// Two columns, or two fields of a struct, have one name.
    #[error("{}: the {part} has a column twice: `{column}`", path.display())]
    ColumnTwice {
        /// The file.
        path: PathBuf,
        /// `header` or `schema`.
        part: &'static str,
        /// The name, after those of the columns that contain it.
        column: String,
    },
    /// A file declares more memory than the limits allow.
    #[error("{}: {what} over the limit of {limit}: `{value}`", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The quantity.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// A `rows` template does not parse.
    #[error("{problem} in template: `{template}`")]
    BadTemplate {
        /// The template.
        template: String,
        /// The problem.
        problem: &'static str,
    },
    /// The columns match no known row format.
    #[error("{location}: cannot tell how to read these columns: {columns}")]
    UnknownRowFormat {
        /// The first row.
        location: Location,
        /// Its columns.
        columns: String,
        /// The columns that the stage reads.
        hint: &'static str,
    },
    /// A column has content that a model of texts cannot read.
    #[error("{location}: column `{column}` is not text and would be left out")]
    UnreadableColumn {
        /// The first row.
        location: Location,
        /// The column.
        column: &'static str,
    },
    /// Too many chats have an answer without text.
    #[error("{source_path}: {n_empty} of {n_rows} rows have an empty answer")]
    EmptyAnswers {
        /// The source as written in the recipe.
        source_path: String,
        /// Rows with an empty answer.
        n_empty: u64,
        /// Rows read.
        n_rows: u64,
    },
    /// The prompt of a chat has other tokens at generation than in training.
    #[error("{location}: {source}")]
    PromptTokens {
        /// The row.
        location: Location,
        /// The tokenizer's error, with the tokens.
        source: Box<tokenizer::Error>,
    },
    /// The keys of a source contradict each other or the stage.
    #[error("{source_path}: {problem}")]
    BadSource {
        /// The source as written in the recipe.
        source_path: String,
        /// The problem.
        problem: String,
    },
    /// The tokenizer failed for a reason that does not depend on the row.
    #[error(transparent)]
    TokenizerUse {
        /// The tokenizer's error.
        source: tokenizer::Error,
    },
    /// The thread that reads a source failed.
    #[error("the reader of the source failed")]
    ReaderFailed,
    /// The system cannot start more threads.
    #[error(transparent)]
    Threads {
        /// The system's error.
        source: fsio::NoThread,
    },
    /// A file could not be written or read back.
    #[error(transparent)]
    Fs(#[from] fsio::Error),
    /// A directory of the cache differs from its MANIFEST.
    #[error("the cache of tokenized data or of a trained tokenizer is damaged: {source}")]
    DamagedCache {
        /// The directory.
        dir: PathBuf,
        /// The difference.
        source: fsio::Error,
    },
    /// The tokenizer lacks a token that packing needs.
    #[error(
        "{}the tokenizer has no end-of-text token",
        path.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default()
    )]
    NoEndToken {
        /// The tokenizer's file, if it is from one.
        path: Option<PathBuf>,
    },
    /// The split leaves one set empty.
    #[error("holdout = {fraction} leaves no {split} rows: {n_rows} rows in all")]
    EmptySplit {
        /// The requested fraction.
        fraction: f64,
        /// `training` or `validation`.
        split: &'static str,
        /// Rows before the split.
        n_rows: u64,
    },
    /// There is nothing to train on.
    #[error("{source_paths}: no sample has a target at sequence_length = {sequence_length}")]
    NoTargets {
        /// The sources as written in the recipe.
        source_paths: String,
        /// Positions per row.
        sequence_length: usize,
        /// Whether every sample fits in a row, so that a longer row would not help.
        fits: bool,
    },
    /// No limit ends the stage, or the limits leave no step.
    #[error("the stage has no steps: {problem}")]
    NoSteps {
        /// The reason.
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

    /// Whether the path of a source is at fault, and not the contents of its files.
    pub fn is_of_path(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. }
                | Self::PatternMatchesNothing { .. }
                | Self::BadPath { .. }
                | Self::EmptyDirectory { .. }
                | Self::Hub(_)
        )
    }

    /// The same error, with advice if a missing path, as written, may be meant as a data set of the Hugging Face hub.
    pub(crate) fn or_repository(mut self, written: &str) -> Self {
        if let Self::NotFound { get, .. } = &mut self {
            *get = hub_local::get_hint(hub_local::Kind::Dataset, Path::new(written));
        }
        self
    }

    /// A damaged file.
    pub(crate) fn bad_file(path: &Path, reason: impl Into<String>) -> Self {
        Self::BadFile { path: path.to_path_buf(), reason: reason.into() }
    }

    /// A hint on what to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Row { location, problem } => Some(problem.hint(location)),
            Self::TooManyBadRows { .. } | Self::AllRowsBad { .. } => {
                Some("repair the file, or raise `max_bad_rows`".into())
            }
            Self::NotFound { nearest, get, .. } => Some(match (nearest, get) {
                (Some(near), _) => format!("did you mean `{}`?", near.display()),
                (None, Some(get)) => get.clone(),
                (None, None) => "relative paths start at the recipe's directory, `data:` paths at the data \
                         directory (--data-dir, TEMPER_DATA, `data_dir`)"
                    .into(),
            }),
            Self::Hub(error) => error.hint(),
            Self::PatternMatchesNothing { .. } => {
                Some("`*` matches within one directory, `**` across directories".into())
            }
            Self::BadPath { .. } => {
                Some("name a file, a directory or a pattern, relative to the recipe".into())
            }
            Self::EmptyDirectory { .. } | Self::UnknownFormat { .. } => Some(format!(
                "known endings: {KNOWN_ENDINGS}, each also with .gz or .zst; otherwise set `format` in the source"
            )),
            Self::NoSplit { .. } => Some("name one of them with `split` in the source".into()),
            Self::ArrayInLines { .. } => Some(
                "set `format = \"json\"` in the source, or write one object per line".into(),
            ),
            Self::BadField { .. } => {
                Some("`field` names the key of a JSON object whose value is the list of rows".into())
            }
            Self::MixedFormats { .. } => Some("choose one with `format` in the source".into()),
            Self::Io { .. } | Self::BadSource { .. } => None,
            Self::EmptyFile { .. } | Self::NoRows { .. } => {
                Some("remove it from the source's `path`, or add rows to it".into())
            }
            Self::FilterMatchesNothing { .. } | Self::EmptyPool { .. } => Some(
                "values are compared exactly as the file has them: `temper data inspect FILE --line 1` \
                 shows a row"
                    .into(),
            ),
            Self::ColumnTwice { .. } => {
                Some("write the file again with one of the two renamed or left out".into())
            }
            Self::BadFile { .. } => Some("create or copy the file again".into()),
            Self::TooLarge { .. } => Some(
                "the limits protect against damaged and hostile files; write the data as JSON lines \
                 or with smaller pages"
                    .into(),
            ),
            Self::BadTemplate { .. } => Some(
                "`{column}` is replaced with a column's value; write `{{` and `}}` for braces"
                    .into(),
            ),
            Self::UnknownRowFormat { location, hint, .. }
                if location.file.extension().is_some_and(|ending| ending == "json") =>
            {
                Some(format!("{hint}; `field` names the key of a JSON object that has the rows"))
            }
            Self::UnknownRowFormat { hint, .. } => Some((*hint).into()),
            Self::UnreadableColumn { column, .. } => Some(format!(
                "to train without it, set `ignore_columns = [\"{column}\"]` in the source"
            )),
            Self::EmptyAnswers { .. } => Some(
                "they would teach the model to say nothing: repair the data, or choose rows with \
                 `where`; up to 5 % are left out and counted"
                    .into(),
            ),
            Self::TokenizerUse { source } => source.hint(),
            Self::PromptTokens { source, .. } => source.hint(),
            Self::ReaderFailed => Some("this is a bug in Temper: please report it".into()),
            Self::Threads { .. } => {
                Some("raise the limit of processes (`ulimit -u`)".into())
            }
            Self::Fs(source) => source.hint(),
            Self::DamagedCache { dir, .. } => Some(format!(
                "check the disk, then remove `{}`: it is made again from the data",
                dir.display()
            )),
            Self::NoEndToken { .. } => Some(
                "set `eos_token` in tokenizer_config.json, or train a tokenizer with \
                 `special_tokens`"
                    .into(),
            ),
            Self::EmptySplit { .. } => Some(
                "a split by content needs several rows: use `by = \"position\"`, or another \
                 `holdout`"
                    .into(),
            ),
            Self::NoTargets { fits: true, .. } => Some(
                "targets are the assistant's answers: no chat has one, or all have a weight of 0; \
                 `temper data inspect` with the data file shows its rows"
                    .into(),
            ),
            Self::NoTargets { fits: false, .. } => Some(
                "raise `sequence_length` if answers are cut off; chats without an answer, and messages with \
                 a weight of 0, have no target; `temper data inspect` shows the rows"
                    .into(),
            ),
            Self::NoSteps { .. } => {
                Some("set `max_steps`, `epochs` or `max_tokens` in the stage's section".into())
            }
        }
    }
}
