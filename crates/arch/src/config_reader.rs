//! Reads the keys of one config.json and remembers which were asked for, so that nothing in the file is passed over
//! by accident. Knows no family's keys; those stand with the family.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::ignored_keys::{HARMLESS, SWITCHED_OFF};

/// The keys of one JSON object, each of which must be asked for or be known as harmless.
#[derive(Debug)]
pub(crate) struct Keys<'a> {
    map: &'a Map<String, Value>,
    origin: &'a Path,
    /// Put before a key in messages, such as `rope_scaling.`.
    scope: &'static str,
    seen: BTreeSet<&'a str>,
    notes: Vec<String>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(value: &'a Value, origin: &'a Path) -> Result<Self> {
        let Some(map) = value.as_object() else {
            return Err(Error::NotAnObject { origin: origin.to_owned() });
        };
        Ok(Self { map, origin, scope: "", seen: BTreeSet::new(), notes: Vec::new() })
    }

    /// The object under `key`, read with the same care; `scope` is `key.` for messages.
    pub(crate) fn section(&mut self, key: &str, scope: &'static str) -> Result<Option<Keys<'a>>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Keys {
                map,
                origin: self.origin,
                scope,
                seen: BTreeSet::new(),
                notes: Vec::new(),
            })),
            Some(other) => Err(self.wrong_type(key, "an object", other)),
        }
    }

    pub(crate) fn origin(&self) -> &'a Path {
        self.origin
    }

    /// The value of `key`, which counts as read; null is the same as absent.
    pub(crate) fn value(&mut self, key: &str) -> Option<&'a Value> {
        let (name, value) = self.map.get_key_value(key)?;
        self.seen.insert(name);
        (!value.is_null()).then_some(value)
    }

    pub(crate) fn size(&mut self, key: &str, range: RangeInclusive<usize>) -> Result<usize> {
        self.size_or_none(key, range)?.ok_or_else(|| self.missing(key, None))
    }

    pub(crate) fn size_or_none(
        &mut self,
        key: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        if !value.is_number() {
            return Err(self.wrong_type(key, "a whole number", value));
        }
        let found = value.as_u64().and_then(|n| usize::try_from(n).ok());
        match found {
            Some(n) if range.contains(&n) => Ok(Some(n)),
            _ => {
                let expected = format!("a whole number from {} to {}", range.start(), range.end());
                Err(self.out_of_range(key, expected, value))
            }
        }
    }

    pub(crate) fn float(&mut self, key: &str, range: RangeInclusive<f64>) -> Result<f64> {
        self.float_or_none(key, range)?.ok_or_else(|| self.missing(key, None))
    }

    pub(crate) fn float_or_none(
        &mut self,
        key: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_f64() {
            Some(x) if range.contains(&x) => Ok(Some(x)),
            Some(_) => {
                let expected = format!("from {} to {}", plain(*range.start()), plain(*range.end()));
                Err(self.out_of_range(key, expected, value))
            }
            None => Err(self.wrong_type(key, "a number", value)),
        }
    }

    pub(crate) fn flag(&mut self, key: &str, default: bool) -> Result<bool> {
        match self.value(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong_type(key, "true or false", other)),
        }
    }

    pub(crate) fn text(&mut self, key: &str) -> Result<Option<&'a str>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_type(key, "a string", other)),
        }
    }

    /// Refuses `key` by name unless it is absent, null or accepted; `hint` says what is supported.
    pub(crate) fn only(
        &mut self,
        key: &str,
        accepted: impl Fn(&Value) -> bool,
        hint: &str,
    ) -> Result<()> {
        match self.value(key) {
            Some(value) if !accepted(value) => Err(self.unsupported(key, value, hint)),
            _ => Ok(()),
        }
    }

    /// Reads keys that only act during training in transformers; a value that would act is reported, not obeyed.
    pub(crate) fn training_defaults(&mut self, keys: &[&str]) -> Result<()> {
        for key in keys {
            if let Some(rate) = self.float_or_none(key, 0.0..=1.0)?
                && rate > 0.0
            {
                self.note(format!(
                    "{}{key} = {rate} is a default for training and is not used; dropout is 0",
                    self.scope
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Ends reading: whatever has not been asked for must be known as harmless. Returns the notes.
    pub(crate) fn finish(mut self) -> Result<Vec<String>> {
        if self.scope.is_empty() {
            for (key, off) in SWITCHED_OFF {
                self.only(key, |value| off.matches(value), "only a model without it is supported")?;
            }
        }
        for (key, value) in self.map {
            let harmless = self.scope.is_empty() && HARMLESS.contains(&key.as_str());
            // A null switches nothing on, whatever its key means.
            if !self.seen.contains(key.as_str()) && !harmless && !value.is_null() {
                return Err(Error::UnknownKey {
                    origin: self.origin.to_owned(),
                    key: format!("{}{key}", self.scope),
                    found: shorten(value),
                });
            }
        }
        Ok(self.notes)
    }

    pub(crate) fn missing(&self, key: &str, hint: Option<&str>) -> Error {
        Error::MissingKey {
            origin: self.origin.to_owned(),
            key: format!("{}{key}", self.scope),
            hint: Some(hint.unwrap_or("the file must describe the whole model").to_owned()),
        }
    }

    pub(crate) fn unsupported(&self, key: &str, value: &Value, hint: &str) -> Error {
        Error::Unsupported {
            origin: self.origin.to_owned(),
            key: format!("{}{key}", self.scope),
            found: shorten(value),
            hint: hint.to_owned(),
        }
    }

    pub(crate) fn inconsistent(&self, message: String, hint: Option<&str>) -> Error {
        Error::Inconsistent {
            origin: self.origin.to_owned(),
            message,
            hint: hint.map(str::to_owned),
        }
    }

    fn wrong_type(&self, key: &str, expected: &'static str, value: &Value) -> Error {
        Error::WrongType {
            origin: self.origin.to_owned(),
            key: format!("{}{key}", self.scope),
            expected,
            found: shorten(value),
        }
    }

    fn out_of_range(&self, key: &str, expected: String, value: &Value) -> Error {
        Error::OutOfRange {
            origin: self.origin.to_owned(),
            key: format!("{}{key}", self.scope),
            expected,
            found: shorten(value),
        }
    }
}

/// A bound for a message, without a row of zeros.
fn plain(number: f64) -> String {
    if number == 0.0 || (1e-3..=1e4).contains(&number) {
        number.to_string()
    } else {
        format!("{number:e}")
    }
}

/// A value for a message: at most 60 characters.
pub(crate) fn shorten(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
