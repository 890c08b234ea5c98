//! JSON values without silent changes: a key that an object has twice and an integer of more than 64 bits are errors.
//!
//! A parser would keep the last of two keys, and round the integer to another number.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why a text is no value.
#[derive(Debug)]
pub(super) struct JsonError {
    /// 1-based line within the text; 0 if it is not known.
    pub(super) line: usize,
    /// 1-based column.
    pub(super) column: usize,
    /// The problem without its position.
    pub(super) reason: String,
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        Self { line, column, reason: parser_reason(&error) }
    }
}

/// Message of serde_json without its position, which counts from the start of the row.
fn parser_reason(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message,
    }
}

/// Parses a value.
pub(super) fn value_of(bytes: &[u8]) -> Result<Value, JsonError> {
    let is_large = Cell::new(false);
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { is_large: &is_large }.deserialize(&mut parser)?;
    parser.end()?;
    // Floating-point numbers of this size are rare, so the text is read again for few rows.
    if is_large.get()
        && let Some(start) = long_integer(bytes)
    {
        let before = bytes.get(..start).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        let reason =
            "an integer of more than 64 bits would be rounded: write it as a text in quotes";
        return Err(JsonError { line, column, reason: reason.to_owned() });
    }
    Ok(value)
}

/// Magnitude from which an integer may be no `i64`, and above which it is no `u64`.
const LARGE: f64 = 9.2e18;

/// Reads a value; notes large floating-point numbers, as which the parser gives integers of more than 64 bits.
#[derive(Clone, Copy)]
struct Strict<'c> {
    is_large: &'c Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        if value.abs() >= LARGE {
            self.is_large.set(true);
        }
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = object.next_key::<String>()? {
            // Checked before its value is read, so that the error has the place of the key.
            if values.contains_key(&key) {
                let shown: String = key.chars().take(60).collect();
                return Err(A::Error::custom(format!(
                    "the key `{shown}` occurs twice in an object"
                )));
            }
            values.insert(key, object.next_value_seed(self)?);
        }
        Ok(Value::Object(values))
    }
}

/// Start of the first integer outside of strings that neither `i64` nor `u64` holds.
fn long_integer(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut in_string) = (0, false);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'-' | b'0'..=b'9' if !in_string => {
                let rest = bytes.get(at..).unwrap_or_default();
                let is_part =
                    |byte: &&u8| matches!(**byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                let length = rest.iter().take_while(is_part).count();
                let number = rest.get(..length).and_then(|number| std::str::from_utf8(number).ok());
                let is_integer = |text: &str| !text.contains(['.', 'e', 'E']);
                let number = number.filter(|text| is_integer(text)).unwrap_or("0");
                if number.parse::<u64>().is_err() && number.parse::<i64>().is_err() {
                    return Some(at);
                }
                at += length.saturating_sub(1);
            }
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_serde_json() {
        for text in [
            r#"{"a": [1, -2, 1.5e3, 18446744073709551615, -9223372036854775808], "b": {"a": null, "c": [true, "x\n"]}}"#,
            r#"[1e30, 9.3e18, "12345678901234567890123", "\"12345678901234567890123", 0]"#,
            "\"a\"",
        ] {
            let wanted: Value = serde_json::from_str(text).unwrap();
            assert_eq!(value_of(text.as_bytes()).unwrap(), wanted);
        }
        for text in ["", "{", "[1,]", "{\"a\" 1}", "1 2", "nul", "\"\u{1}\""] {
            let wanted = serde_json::from_str::<Value>(text).unwrap_err();
            let error = value_of(text.as_bytes()).unwrap_err();
            assert_eq!((error.line, error.column), (wanted.line(), wanted.column()), "{text}");
        }
    }

    #[test]
    fn what_would_be_changed_is_refused() {
        for (text, column, reason) in [
            (r#"{"text":"first","text":"second"}"#, 22, "the key `text` occurs twice"),
            (r#"{"a":[{"b":1,"c":2,"b":1}]}"#, 22, "the key `b` occurs twice"),
            (r#"{"n": 12345678901234567890123}"#, 7, "an integer of more than 64 bits"),
            (r#"{"n": [1e30, -9223372036854775809]}"#, 14, "an integer of more than 64 bits"),
        ] {
            let error = value_of(text.as_bytes()).unwrap_err();
            assert!(error.reason.starts_with(reason), "{}", error.reason);
            assert_eq!((error.line, error.column), (1, column), "{text}");
        }
    }
}
