//! Whether a row has the values that a recipe asks of its columns.
//!
//! It deliberately compares texts as they stand: a number is the digits that the file has, and case matters.

use recipe::ColumnValues;
use serde_json::{Map, Value};

use crate::row_problem::RowProblem;
use crate::rows::text::{column, plain};

type Checked<T> = std::result::Result<T, RowProblem>;

/// Whether every column has one of its values; of a list one entry is enough.
pub(crate) fn fits(wanted: &ColumnValues, columns: &Map<String, Value>) -> Checked<bool> {
    let mut all = true;
    for (name, values) in wanted.entries() {
        // Every column is looked at: one that is missing is an error whatever the others hold.
        all &= has_one_of(name, column(name, columns)?, values)?;
    }
    Ok(all)
}

fn has_one_of(name: &str, value: &Value, values: &[String]) -> Checked<bool> {
    match value {
        Value::Null => Ok(false),
        Value::Array(items) => {
            let mut found = false;
            for item in items {
                found |= values.contains(&plain(name, item)?);
            }
            Ok(found)
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Ok(values.contains(&plain(name, value)?))
        }
    }
}
