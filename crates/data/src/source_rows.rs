//! Rows of a source: those of all its files in order, after `limit` and `where`.

use recipe::{ColumnValues, SampleKind};

use crate::error::{Error, Result};
use crate::location::Location;
use crate::row_problem::RowProblem;
use crate::rows::{RowFormat, matches_filter};
use crate::source::{BytesRead, Row, RowIter, read_all};
use crate::spec::SourceSpec;

/// Rows of a source that its `where` matches, and errors for the rows that cannot be read.
pub(crate) struct SourceRows {
    rows: std::iter::Take<RowIter>,
    filter: Option<ColumnValues>,
    n_filtered: u64,
}

impl SourceRows {
    /// Opens a source. Only the columns that its row format or its filter reads are decoded.
    pub(crate) fn open(spec: &SourceSpec, row_format: &RowFormat, read: BytesRead) -> Self {
        let needed = row_format.columns().map(|mut columns| {
            let more = spec.filter.iter().flat_map(ColumnValues::entries);
            columns.extend(more.map(|(column, _)| column.to_owned()));
            columns
        });
        let limit = usize::try_from(spec.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let rows = read_all(spec.files.clone(), spec.format, needed, read).take(limit);
        Self { rows, filter: spec.filter.clone(), n_filtered: 0 }
    }

    /// Number of rows that `where` has removed so far.
    pub(crate) fn n_filtered(&self) -> u64 {
        self.n_filtered
    }
}

impl Iterator for SourceRows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let row = self.rows.next()?;
            let (Ok(read), Some(filter)) = (&row, &self.filter) else { return Some(row) };
            match matches_filter(filter, &read.columns) {
                Ok(true) => return Some(row),
                Ok(false) => self.n_filtered += 1,
                Err(problem) => return Some(Err(Error::row(read.location.clone(), problem))),
            }
        }
    }
}

/// Converts a row and returns the result with the row's location, which is part of any error.
pub(crate) fn convert_row<T>(
    row: Result<Row>,
    of: impl FnOnce(&Row) -> std::result::Result<T, RowProblem>,
) -> Result<(T, Location)> {
    let row = row?;
    match of(&row) {
        Ok(made) => Ok((made, row.location)),
        Err(problem) => Err(Error::row(row.location, problem)),
    }
}

/// Row format of a source, from its keys and its first good row. `None` if the source has no rows.
pub(crate) fn detect_format(spec: &SourceSpec, kind: SampleKind) -> Result<Option<RowFormat>> {
    let mut rows = read_all(spec.files.clone(), spec.format, None, BytesRead::default());
    let first = rows.find(|row| !matches!(row, Err(Error::Row { .. })));
    match first.transpose()? {
        Some(first) => RowFormat::detect(spec.format_request(), kind, &first).map(Some),
        None => Ok(None),
    }
}

/// Why [`detect_format`] found nothing: the first bad row, or no rows at all.
pub(crate) fn why_no_rows(spec: &SourceSpec) -> Error {
    let mut rows = read_all(spec.files.clone(), spec.format, None, BytesRead::default());
    let no_rows = || Error::NoRows { source_path: spec.path.clone() };
    rows.find_map(Result::err).unwrap_or_else(no_rows)
}
