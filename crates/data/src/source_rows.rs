//! The rows of a source as every reader of it meets them: all files in order, `limit` and `where` heeded.
//!
//! It deliberately makes nothing of a row but the choice whether it is read at all.

use recipe::{ColumnValues, SampleKind};

use crate::error::{Error, Result};
use crate::location::Location;
use crate::row_problem::RowProblem;
use crate::rows::{RowFormat, matches_filter};
use crate::source::{BytesRead, Row, RowIter, read_all};
use crate::spec::SourceSpec;

/// The rows of a source that its `where` lets through, and those that cannot be read.
pub(crate) struct SourceRows {
    rows: std::iter::Take<RowIter>,
    filter: Option<ColumnValues>,
    n_filtered: u64,
}

impl SourceRows {
    /// Opens a source; only the columns are decoded that its shape or its filter needs.
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

    /// RowIter that `where` has left out so far.
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
                Err(problem) => return Some(Err(bad(read.location.clone(), problem))),
            }
        }
    }
}

/// A row as something is made of it; what is wrong with the row gets its place.
pub(crate) fn convert_row<T>(
    row: Result<Row>,
    of: impl FnOnce(&Row) -> std::result::Result<T, RowProblem>,
) -> Result<(T, Location)> {
    let row = row?;
    match of(&row) {
        Ok(made) => Ok((made, row.location)),
        Err(problem) => Err(bad(row.location, problem)),
    }
}

fn bad(location: Location, problem: RowProblem) -> Error {
    Error::row(location, problem)
}

/// How the rows of a source are read, by its keys and its first good row; None without any row.
pub(crate) fn detect_format(spec: &SourceSpec, kind: SampleKind) -> Result<Option<RowFormat>> {
    let mut rows = read_all(spec.files.clone(), spec.format, None, BytesRead::default());
    let first = rows.find(|row| !matches!(row, Err(Error::Row { .. })));
    match first.transpose()? {
        Some(first) => RowFormat::detect(spec.request(), kind, &first).map(Some),
        None => Ok(None),
    }
}
