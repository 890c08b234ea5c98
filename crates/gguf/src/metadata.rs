//! The key–value pairs of a file, in its order, with typed access.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::value::{Array, Value};
use crate::{Error, Result};

/// The metadata of a file.
#[derive(Debug, Clone)]
pub struct Metadata {
    path: PathBuf,
    pairs: Vec<(String, Value)>,
    by_key: BTreeMap<String, usize>,
}

impl Metadata {
    /// Metadata of the file at `path`; a key that occurs twice is an error.
    pub(crate) fn new(path: &Path, pairs: Vec<(String, Value)>) -> Result<Self> {
        let mut by_key = BTreeMap::new();
        for (idx, (key, _)) in pairs.iter().enumerate() {
            if by_key.insert(key.clone(), idx).is_some() {
                let reason = format!("metadata key `{key}` occurs twice");
                return Err(Error::Malformed { path: path.to_owned(), reason });
            }
        }
        Ok(Self { path: path.to_owned(), pairs, by_key })
    }

    /// The file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All pairs in the file's order.
    pub fn pairs(&self) -> &[(String, Value)] {
        &self.pairs
    }

    /// A value.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.by_key.get(key).and_then(|idx| self.pairs.get(*idx)).map(|(_, value)| value)
    }

    /// A non-negative integer.
    pub fn uint(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a non-negative integer", Value::as_u64)
    }

    /// A number.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// True or false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |value| {
            if let Value::Bool(flag) = value { Some(*flag) } else { None }
        })
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |value| {
            if let Value::String(text) = value { Some(text.as_str()) } else { None }
        })
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "an array of strings", |value| {
            if let Value::Array(Array::String(texts)) = value {
                Some(texts.as_slice())
            } else {
                None
            }
        })
    }

    /// An array, converted element by element.
    pub fn array<T>(
        &self,
        key: &str,
        expected: &'static str,
        convert: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        self.typed(key, expected, |value| {
            let Value::Array(array) = value else { return None };
            (0..array.len()).map(|idx| convert(&array.value(idx)?)).collect()
        })
    }

    /// `value`, or the error that `key` is absent.
    pub fn require<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| Error::MissingKey { path: self.path.clone(), key: key.to_owned() })
    }

    /// The error that the value of `key` is not `expected`.
    pub fn wrong(&self, key: &str, expected: &'static str) -> Error {
        Error::WrongType {
            path: self.path.clone(),
            key: key.to_owned(),
            expected,
            found: self.get(key).map(Value::preview).unwrap_or_default(),
        }
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.wrong(key, expected))
    }
}
