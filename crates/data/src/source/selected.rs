//! Rows of a saved dataset that was shuffled or filtered, in the order of its indices.
//!
//! The order is arbitrary, so the selected rows are in memory.

use std::collections::HashMap;
use std::path::PathBuf;
use std::vec::IntoIter;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::source::arrow::ArrowRows;
use crate::source::{BytesRead, Row, RowIter};

/// Column of the indices.
const COLUMN: &str = "indices";

/// Selected rows of an iterator.
pub(crate) struct Selected {
    /// Files of the indices and all rows, until the first row is requested.
    unread: Option<(Vec<PathBuf>, RowIter)>,
    order: IntoIter<u64>,
    rows: HashMap<u64, Result<Row>>,
}

impl Selected {
    /// `files` contain the indices in order, among all `rows` of the dataset.
    pub(crate) fn new(files: Vec<PathBuf>, rows: RowIter) -> Self {
        Self { unread: Some((files, rows)), order: Vec::new().into_iter(), rows: HashMap::new() }
    }

    /// Reads the indices and the rows that they select.
    fn read(&mut self, files: &[PathBuf], rows: RowIter) -> Result<()> {
        let mut order = Vec::new();
        for file in files {
            let needed = [COLUMN.to_owned()];
            for row in ArrowRows::open(file, Some(&needed), &BytesRead::default())? {
                let index = row?.columns.get(COLUMN).and_then(Value::as_u64);
                let reason = format!("no column `{COLUMN}` of numbers");
                order.push(index.ok_or_else(|| Error::bad_file(file, reason))?);
            }
        }
        let selected: std::collections::HashSet<u64> = order.iter().copied().collect();
        let mut n_rows = 0;
        for (index, row) in (0_u64..).zip(rows) {
            n_rows = index + 1;
            if let Err(error) = &row
                && !matches!(error, Error::Row { .. })
            {
                return row.map(drop);
            }
            if selected.contains(&index) {
                self.rows.insert(index, row);
            }
        }
        if let Some(index) = order.iter().find(|index| **index >= n_rows)
            && let Some(file) = files.first()
        {
            let reason = format!("index `{index}`, but the dataset has {n_rows} rows");
            return Err(Error::bad_file(file, reason));
        }
        self.order = order.into_iter();
        Ok(())
    }
}

impl Iterator for Selected {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some((files, rows)) = self.unread.take()
            && let Err(error) = self.read(&files, rows)
        {
            return Some(Err(error));
        }
        let index = self.order.next()?;
        // An index may occur several times.
        Some(match self.rows.get(&index)? {
            Ok(row) => Ok(row.clone()),
            Err(Error::Row { location, problem }) => {
                Err(Error::row(location.clone(), problem.clone()))
            }
            Err(_) => Err(Error::ReaderFailed),
        })
    }
}
