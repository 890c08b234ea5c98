//! JSON values without silent changes: a key that an object has twice is an error, because a parser would keep the last.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

/// Why a text is no JSON value.
#[derive(Debug)]
pub struct JsonError {
    /// 1-based line within the text; 0 if it is not known.
    pub line: usize,
    /// 1-based column.
    pub column: usize,
    /// The problem without its position.
    pub reason: String,
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

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at line {} column {}", self.reason, self.line, self.column)
    }
}

/// Parses a JSON value; also returns whether it may have integers of more than 64 bits, which are rounded.
///
/// Errors: no JSON value, or an object with a key twice.
pub fn strict_json(bytes: &[u8]) -> Result<(Value, bool), JsonError> {
    let is_large = Cell::new(false);
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { is_large: &is_large }.deserialize(&mut parser)?;
    parser.end()?;
    Ok((value, is_large.get()))
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
            match values.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(object.next_value_seed(self)?);
                }
                Entry::Occupied(found) => {
                    let shown: String = found.key().chars().take(60).collect();
                    return Err(A::Error::custom(format!(
                        "the key `{shown}` occurs twice in an object"
                    )));
                }
            }
        }
        Ok(Value::Object(values))
    }
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
            assert_eq!(strict_json(text.as_bytes()).unwrap().0, wanted);
        }
        for text in ["", "{", "[1,]", "{\"a\" 1}", "1 2", "nul", "\"\u{1}\""] {
            let wanted = serde_json::from_str::<Value>(text).unwrap_err();
            let error = strict_json(text.as_bytes()).unwrap_err();
            assert_eq!((error.line, error.column), (wanted.line(), wanted.column()), "{text}");
        }
    }

    #[test]
    fn keys_that_occur_twice_are_refused() {
        for (text, column, reason) in [
            (r#"{"text":"first","text":"second"}"#, 22, "the key `text` occurs twice"),
            (r#"{"a":[{"b":1,"c":2,"b":1}]}"#, 22, "the key `b` occurs twice"),
        ] {
            let error = strict_json(text.as_bytes()).unwrap_err();
            assert!(error.reason.starts_with(reason), "{}", error.reason);
            assert_eq!((error.line, error.column), (1, column), "{text}");
            assert!(error.to_string().ends_with(&format!(" at line 1 column {column}")), "{error}");
        }
    }
}
