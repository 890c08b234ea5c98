//! The filter `where`: whether the columns of a row have the values that a recipe lists.
//!
//! Values are compared as texts, exactly: numbers by their digits in the file, and case matters.

use recipe::ColumnValues;
use serde_json::{Map, Value};

use crate::row_problem::RowProblem;
use crate::rows::text::{column, plain};

type Checked<T> = std::result::Result<T, RowProblem>;

/// Whether every column has one of its listed values. One matching entry of a list is enough.
pub(crate) fn matches_filter(wanted: &ColumnValues, columns: &Map<String, Value>) -> Checked<bool> {
    let mut all = true;
    for (name, values) in wanted.entries() {
        // No early exit: a missing column is an error whatever the values of the others.
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
