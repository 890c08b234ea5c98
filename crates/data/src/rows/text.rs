//! Values as text: single columns, and templates over several columns.
//!
//! Objects and missing values have no text; such a row is an error.

use recipe::{Piece, Template};
use serde_json::{Map, Value};

use crate::dialogue::Dialogue;
use crate::limits;
use crate::row_problem::{RowProblem, name_list, nearest};
use crate::source::json_kind;

type Checked<T> = std::result::Result<T, RowProblem>;

/// Value of a column. For a missing column, the error lists the existing ones.
pub(crate) fn column<'a>(name: &str, columns: &'a Map<String, Value>) -> Checked<&'a Value> {
    columns.get(name).ok_or_else(|| RowProblem::MissingColumn {
        column: name.to_owned(),
        columns: name_list(columns.keys().map(String::as_str)),
        nearest: nearest(name, columns.keys().map(String::as_str)),
    })
}

/// Text of a column.
pub(crate) fn text_column(name: &str, columns: &Map<String, Value>) -> Checked<String> {
    plain(name, column(name, columns)?)
}

/// Number of a column, given as a number or as text.
pub(crate) fn number_column(name: &str, columns: &Map<String, Value>) -> Checked<f32> {
    let value = column(name, columns)?;
    let number = match value {
        Value::String(text) => text.trim().parse::<f32>().ok(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.as_f64().map(|number| number as f32)
        }
    };
    number.filter(|number| number.is_finite()).ok_or_else(|| RowProblem::WrongType {
        column: name.to_owned(),
        found: json_kind(value),
        expected: "a finite number",
    })
}

/// Text of a value: of a text, a number or a boolean.
pub(crate) fn plain(name: &str, value: &Value) -> Checked<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(RowProblem::WrongType {
            column: name.to_owned(),
            found: json_kind(value),
            expected: "a text",
        }),
    }
}

/// Fills a template with the values of a row; a list is joined with " and ".
pub(crate) fn render(template: &Template, columns: &Map<String, Value>) -> Checked<String> {
    let mut text = String::new();
    for piece in template.pieces() {
        match piece {
            Piece::Text(piece) => text.push_str(piece),
            Piece::Column(name) => text.push_str(&joined(name, column(name, columns)?)?),
        }
        // A column may occur very often in a template.
        if text.len() > limits::CELL_BYTES {
            return Err(RowProblem::LongText { limit: limits::CELL_BYTES as u64 });
        }
    }
    Ok(text)
}

fn joined(name: &str, value: &Value) -> Checked<String> {
    match value {
        Value::Array(items) if items.is_empty() => Err(RowProblem::WrongType {
            column: name.to_owned(),
            found: "an empty list",
            expected: "a text or a list of texts",
        }),
        Value::Array(items) => {
            let texts: Checked<Vec<String>> = items.iter().map(|item| plain(name, item)).collect();
            Ok(texts?.join(" and "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            plain(name, value)
        }
    }
}

/// The first 64 bits of the SHA-256 of a text.
pub(crate) fn text_hash(text: &str) -> u64 {
    let mut hasher = fsio::Sha256::new();
    hasher.update(text.as_bytes());
    short_hash(hasher)
}

/// The first 64 bits of the SHA-256 of a conversation: roles, contents, fields and tools.
pub(crate) fn chat_hash(dialogue: &Dialogue) -> u64 {
    let mut hasher = fsio::Sha256::new();
    for message in &dialogue.messages {
        // The length prefix makes the bytes of two different conversations different.
        hasher.update(message.role.as_str());
        hasher.update([0]);
        hasher.update((message.content.len() as u64).to_le_bytes());
        hasher.update(message.content.as_bytes());
        if !message.fields.is_empty() {
            hasher.update(Value::Object(message.fields.clone()).to_string());
        }
    }
    for tool in &dialogue.tools {
        hasher.update(tool.to_string());
    }
    short_hash(hasher)
}

pub(crate) fn short_hash(hasher: fsio::Sha256) -> u64 {
    let hex = hasher.finish_hex();
    u64::from_str_radix(hex.get(..16).unwrap_or_default(), 16).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_occurs_very_often_is_refused() {
        let columns = Map::from_iter([("a".to_owned(), Value::from("x".repeat(1 << 20)))]);
        let template = |n: usize| Template::parse(&"{a}".repeat(n)).unwrap();
        assert_eq!(render(&template(3), &columns).unwrap().len(), 3 << 20);
        assert!(matches!(render(&template(100_000), &columns), Err(RowProblem::LongText { .. })));
    }
}
