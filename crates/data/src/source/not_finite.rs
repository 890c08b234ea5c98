//! JSON as Python writes it: `NaN`, `Infinity` and `-Infinity`, which JSON does not have, are read as null.

use fsio::{JsonError, strict_json};
use serde_json::Value;

use super::long_integers::{Exact, exact};

/// Words that Python writes, each with a valid number of the same length.
const WORDS: [(&[u8], &[u8]); 3] =
    [(b"NaN", b"1e0"), (b"Infinity", b"1e000000"), (b"-Infinity", b"-1e000000")];

/// A parsed value.
#[derive(Debug, PartialEq)]
pub(super) struct Parsed {
    pub(super) value: Value,
    /// Number of values that were read as null because they are not finite.
    pub(super) n_not_finite: u64,
    /// Keys of an object whose values have integers of more than 64 bits, read as texts.
    pub(super) with_long_integers: Vec<String>,
}

/// Parses a JSON value.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, JsonError> {
    let error = match strict_json(bytes) {
        Ok(found) => return parsed(found, bytes, 0),
        Err(error) => error,
    };
    let (nulls, n_not_finite) = replaced(bytes, |_| b"null");
    if n_not_finite == 0 {
        return Err(error);
    }
    match strict_json(&nulls) {
        Ok(found) => parsed(found, &nulls, n_not_finite),
        // The value has another error. Words of the same length keep its position.
        Err(error) => {
            let (numbers, _) = replaced(bytes, |word| word);
            Err(strict_json(&numbers).err().unwrap_or(error))
        }
    }
}

fn parsed(found: (Value, bool), bytes: &[u8], n_not_finite: u64) -> Result<Parsed, JsonError> {
    let Exact { value, keys } = exact(found, bytes)?;
    Ok(Parsed { value, n_not_finite, with_long_integers: keys })
}

/// The bytes with each of the words outside of strings replaced, and the number of words. `by` receives the number of
/// the same length.
fn replaced<'a>(bytes: &[u8], by: impl Fn(&'a [u8]) -> &'a [u8]) -> (Vec<u8>, u64) {
    let mut out = Vec::with_capacity(bytes.len());
    let (mut at, mut n_words) = (0, 0);
    let (mut in_string, mut escaped) = (false, false);
    while let Some(&byte) = bytes.get(at) {
        if !in_string
            && let Some((word, number)) =
                WORDS.iter().find(|(word, _)| bytes[at..].starts_with(word))
        {
            out.extend_from_slice(by(number));
            n_words += 1;
            at += word.len();
            continue;
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            _ => {}
        }
        out.push(byte);
        at += 1;
    }
    (out, n_words)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_of_python_are_null_outside_of_strings() {
        let text = br#"{"a": NaN, "b \" NaN": "-Infinity \\", "c": [Infinity, -Infinity, 2]}"#;
        let expected = json!({"a": null, "b \" NaN": "-Infinity \\", "c": [null, null, 2]});
        let read = |text: &[u8]| {
            let Parsed { value, n_not_finite, with_long_integers } = parse(text).unwrap();
            (value, n_not_finite, with_long_integers.join(","))
        };
        assert_eq!(read(text), (expected, 3, String::new()));
        assert_eq!(read(br#"{"NaN": 1}"#), (json!({"NaN": 1}), 0, String::new()));
        let long = br#"{"a": NaN, "n": 99999999999999999999}"#;
        let expected = json!({"a": null, "n": "99999999999999999999"});
        assert_eq!(read(long), (expected, 1, "n".to_owned()));
    }

    #[test]
    fn other_errors_keep_their_position() {
        for text in ["[NaN, Infinity, x]", "[NaN", "[NaN NaN]", "[nan]"] {
            let error = parse(text.as_bytes()).unwrap_err();
            let numbers = text.replace("Infinity", "1e000000").replace("NaN", "1e0");
            let expected = serde_json::from_str::<Value>(&numbers).unwrap_err();
            let place = (expected.line(), expected.column());
            assert_eq!((error.line, error.column), place, "{text}");
            assert!(expected.to_string().starts_with(&error.reason), "{text}: {}", error.reason);
        }
        // Python has no negative NaN.
        assert!(parse(b"[-NaN]").is_err());
    }
}
