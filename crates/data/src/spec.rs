//! A source of a recipe with its files resolved. The files are opened when the source is prepared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use recipe::{
    ColumnValues, Columns, DrawnPairs, Format, RoleName, RowLayout, Rows, Source, Template,
};

use crate::error::{Error, Result};
use crate::files::{ReadOptions, SourceFiles};
use crate::paths::{expand, resolve};
use crate::rows::FormatRequest;
use crate::source::file_format;

/// A resolved source.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceSpec {
    /// Path as written in the recipe, for messages.
    pub path: String,
    /// Files in reading order, and how to read them.
    pub files: SourceFiles,
    /// Format of every file, if the recipe sets it.
    pub format: Option<Format>,
    /// Layout of the rows.
    pub layout: RowLayout,
    /// Column that contains the text of a document.
    pub text: Option<String>,
    /// Templates that build texts from columns.
    pub rows: Option<Rows>,
    /// Names of columns, where they differ from the usual ones.
    pub columns: Option<Columns>,
    /// Filter: only rows whose columns have one of these values are used.
    pub filter: Option<ColumnValues>,
    /// Labels of the texts that pairs are drawn from.
    pub pairs: Option<DrawnPairs>,
    /// Roles by the names that the data uses for them.
    pub roles: BTreeMap<String, RoleName>,
    /// Columns and fields of messages that are left out on purpose.
    pub ignore_columns: Vec<String>,
    /// Texts of a row that are stored next to its prompt, such as right answers.
    pub answers: Vec<Template>,
    /// Number of times each row is seen per epoch.
    pub weight: f64,
    /// Maximum number of rows read from the start; lines in plain text files.
    pub limit: Option<u64>,
}

impl SourceSpec {
    /// Resolves a source of a recipe. `limit` is the limit of the command line; the smaller limit applies.
    pub fn resolve(
        source: &Source,
        recipe_dir: &Path,
        data_dir: &Path,
        limit: Option<u64>,
    ) -> Result<Self> {
        let path = resolve(&source.path, recipe_dir, data_dir)?;
        let expanded = expand(&path, source.format, source.split.as_deref());
        let mut files = expanded.map_err(|error| error.or_repository(&source.path))?;
        files.options = ReadOptions {
            field: source.field.clone(),
            delimiter: source.delimiter.as_ref().and_then(|text| text.bytes().next()),
            max_row_bytes: source.max_row_bytes,
        };
        check_options(source, &files)?;
        Ok(Self {
            path: source.path.clone(),
            files,
            format: source.format,
            layout: source.layout,
            text: source.text.clone(),
            rows: source.rows.clone(),
            columns: source.columns.clone(),
            filter: source.filter.clone(),
            pairs: source.pairs.clone(),
            roles: source.roles.clone(),
            ignore_columns: source.ignore_columns.clone(),
            answers: Vec::new(),
            weight: source.weight,
            limit: source.limit.into_iter().chain(limit).min(),
        })
    }

    /// A source of one file, with the default value of every other key.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            path: path.display().to_string(),
            files: vec![path].into(),
            format: None,
            layout: RowLayout::Auto,
            text: None,
            rows: None,
            columns: None,
            filter: None,
            pairs: None,
            roles: BTreeMap::new(),
            ignore_columns: Vec::new(),
            answers: Vec::new(),
            weight: 1.0,
            limit: None,
        }
    }

    pub(crate) fn format_request(&self) -> FormatRequest<'_> {
        FormatRequest {
            layout: self.layout,
            text: self.text.as_deref(),
            rows: self.rows.as_ref(),
            columns: self.columns.as_ref(),
            pairs: self.pairs.as_ref(),
            roles: &self.roles,
            ignored: &self.ignore_columns,
            answers: &self.answers,
        }
    }
}

/// Checks that the files have the formats that the keys of the source are for.
fn check_options(source: &Source, files: &SourceFiles) -> Result<()> {
    let keys: [(&str, bool, &[Format], &str); 2] = [
        ("field", source.field.is_some(), &[Format::Json], "is for JSON files"),
        ("delimiter", source.delimiter.is_some(), &[Format::Csv, Format::Tsv], "is for CSV files"),
    ];
    for (key, _, formats, purpose) in keys.into_iter().filter(|(_, is_set, ..)| *is_set) {
        for file in files {
            if !formats.contains(&file_format(file, source.format)?) {
                return Err(Error::BadSource {
                    source_path: source.path.clone(),
                    problem: format!("`{key}` {purpose}: `{}`; set `format`", file.display()),
                });
            }
        }
    }
    Ok(())
}
