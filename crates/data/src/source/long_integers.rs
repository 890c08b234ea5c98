//! Integers of more than 64 bits in JSON, which the parser would round to other numbers.
//!
//! A column that is read must not have one. Elsewhere, such as in a 128-bit id among the metadata, it is a text of the same
//! digits.

use fsio::{JsonError, strict_json};
use serde_json::{Map, Value};

use crate::row_problem::RowProblem;

/// A value whose long integers are texts, with the keys of those that have one.
pub(super) struct Exact {
    pub(super) value: Value,
    /// Top-level keys of the values with long integers, in order.
    pub(super) keys: Vec<String>,
}

/// A value as it would be if its long integers were written in quotes. It was parsed from `bytes` by [`strict_json`], which
/// also says whether it may have one: few have, so the text of few is read again.
pub(super) fn exact(
    (rounded, may_be_rounded): (Value, bool),
    bytes: &[u8],
) -> Result<Exact, JsonError> {
    let Some(quoted) = may_be_rounded.then(|| quoted(bytes)).flatten() else {
        return Ok(Exact { value: rounded, keys: Vec::new() });
    };
    let (value, _) = strict_json(&quoted)?;
    let keys = match (&rounded, &value) {
        (Value::Object(rounded), Value::Object(exact)) => {
            // A number and a text differ, so the values that differ are those with long integers.
            let differs = |(key, value): &(&String, &Value)| rounded.get(*key) != Some(*value);
            exact.iter().filter(differs).map(|(key, _)| key.clone()).collect()
        }
        _ => Vec::new(),
    };
    Ok(Exact { value, keys })
}

/// Refuses a row with a long integer in a column that is read. Without `needed`, nobody knows yet which are.
pub(super) fn check(
    columns: Map<String, Value>,
    with_long_integers: &[String],
    needed: Option<&[String]>,
) -> Result<Map<String, Value>, RowProblem> {
    let is_read = |column: &&String| needed.is_some_and(|needed| needed.contains(column));
    match with_long_integers.iter().find(is_read) {
        Some(column) => Err(RowProblem::LongInteger { column: column.clone() }),
        None => Ok(columns),
    }
}

/// The text with quotes around the integers outside of strings that neither `i64` nor `u64` holds; `None` if it has none.
fn quoted(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len() + 2);
    let (mut at, mut in_string, mut has_any) = (0, false, false);
    while let Some(&byte) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or_default();
        let length = match byte {
            b'\\' if in_string => 2,
            b'"' => {
                in_string = !in_string;
                1
            }
            b'-' | b'0'..=b'9' if !in_string => {
                rest.iter().take_while(|byte| is_part(**byte)).count()
            }
            _ => 1,
        };
        let part = rest.get(..length).unwrap_or(rest);
        let is_long = !in_string && length > 1 && is_long_integer(part);
        out.extend_from_slice(if is_long { b"\"" } else { b"" });
        out.extend_from_slice(part);
        out.extend_from_slice(if is_long { b"\"" } else { b"" });
        has_any |= is_long;
        at += length;
    }
    has_any.then_some(out)
}

/// Whether a byte can be part of a number.
fn is_part(byte: u8) -> bool {
    matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
}

fn is_long_integer(number: &[u8]) -> bool {
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    let text = std::str::from_utf8(number).unwrap_or_default();
    !digits.is_empty()
        && digits.iter().all(u8::is_ascii_digit)
        && text.parse::<u64>().is_err()
        && text.parse::<i64>().is_err()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn exact_of(text: &str) -> (Value, Vec<String>) {
        let (rounded, is_large) = strict_json(text.as_bytes()).unwrap();
        assert!(is_large, "{text}");
        let Exact { value, keys } = exact((rounded, is_large), text.as_bytes()).unwrap();
        (value, keys)
    }

    #[test]
    fn long_integers_are_texts_of_their_digits() {
        assert_eq!(
            exact_of(
                r#"{"a": 1, "n": 12345678901234567890123, "m": {"x": [1e30, -9223372036854775809]}}"#
            ),
            (
                json!({"a": 1, "n": "12345678901234567890123", "m": {"x": [1e30, "-9223372036854775809"]}}),
                vec!["n".to_owned(), "m".to_owned()]
            )
        );
        let text = r#"{"s": "\\\" 99999999999999999999", "b": 18446744073709551615, "c": -9223372036854775808, "f": 9.3e18}"#;
        assert_eq!(exact_of(text), (serde_json::from_str(text).unwrap(), Vec::new()));
        assert_eq!(exact_of("99999999999999999999"), (json!("99999999999999999999"), Vec::new()));
    }

    #[test]
    fn only_columns_that_are_read_must_not_have_one() {
        let columns = || json!({"text": "a", "id": "1"}).as_object().cloned().unwrap_or_default();
        let long = ["id".to_owned()];
        for needed in [None, Some(["text".to_owned()])] {
            let needed = needed.as_ref().map(<[String; 1]>::as_slice);
            assert_eq!(check(columns(), &long, needed), Ok(columns()));
        }
        let refused = check(columns(), &long, Some(&["text".to_owned(), "id".to_owned()]));
        assert_eq!(refused, Err(RowProblem::LongInteger { column: "id".to_owned() }));
    }
}
