//! A source of a recipe with its files found: what to read, how, and how often.
//!
//! It deliberately opens no file; what lies in them is seen when they are prepared.

use std::path::{Path, PathBuf};

use recipe::{ColumnValues, Columns, DrawnPairs, Format, RowLayout, Rows, Source};

use crate::error::Result;
use crate::paths::{expand, resolve};
use crate::rows::FormatRequest;

/// One source, ready to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceSpec {
    /// The path as the recipe writes it, for messages.
    pub path: String,
    /// The files in reading order.
    pub files: Vec<PathBuf>,
    /// The format of every file, where the recipe says it.
    pub format: Option<Format>,
    /// What a row is.
    pub layout: RowLayout,
    /// The column of a document's text.
    pub text: Option<String>,
    /// Templates that make texts of columns.
    pub rows: Option<Rows>,
    /// Other names for columns.
    pub columns: Option<Columns>,
    /// Only rows whose columns have one of these values.
    pub filter: Option<ColumnValues>,
    /// Pairs drawn from rows of one text each.
    pub pairs: Option<DrawnPairs>,
    /// How often each row is seen in an epoch.
    pub weight: f64,
    /// Only so many rows from the start; of a plain text file, so many lines.
    pub limit: Option<u64>,
}

impl SourceSpec {
    /// Finds the files of a recipe's source; `limit` is the command line's, the smaller one holds.
    pub fn resolve(
        source: &Source,
        recipe_dir: &Path,
        data_dir: &Path,
        limit: Option<u64>,
    ) -> Result<Self> {
        let path = resolve(&source.path, recipe_dir, data_dir)?;
        Ok(Self {
            path: source.path.clone(),
            files: expand(&path, source.format)?,
            format: source.format,
            layout: source.layout,
            text: source.text.clone(),
            rows: source.rows.clone(),
            columns: source.columns.clone(),
            filter: source.filter.clone(),
            pairs: source.pairs.clone(),
            weight: source.weight,
            limit: source.limit.into_iter().chain(limit).min(),
        })
    }

    /// One file with every other key left out.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            path: path.display().to_string(),
            files: vec![path],
            format: None,
            layout: RowLayout::Auto,
            text: None,
            rows: None,
            columns: None,
            filter: None,
            pairs: None,
            weight: 1.0,
            limit: None,
        }
    }

    pub(crate) fn request(&self) -> FormatRequest<'_> {
        FormatRequest {
            layout: self.layout,
            text: self.text.as_deref(),
            rows: self.rows.as_ref(),
            columns: self.columns.as_ref(),
            pairs: self.pairs.as_ref(),
        }
    }
}
