//! Reads the keys of one config.json and records which have been read, so that no key of the file is dropped silently.
//! The keys of a family are listed in that family's file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::ignored_keys::{REQUIRED_OFF, is_ignored};

/// The keys of one JSON object, with typed access and a record of those that have been read.
#[derive(Debug)]
pub(crate) struct ConfigReader<'a> {
    map: &'a Map<String, Value>,
    origin: &'a Path,
    /// Prefix of keys in messages, such as `rope_scaling.`.
    scope: &'static str,
    read: BTreeSet<&'a str>,
    /// Every key that was asked for, with its scope, whether or not the object has it.
    uses: BTreeMap<String, KeyUse>,
    notes: Notes,
}

/// Effect of a key of config.json on a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyUse {
    /// Its value is used.
    Honoured,
    /// Values that would change the forward pass in an unsupported way are refused by name.
    Checked,
    /// A setting of training in transformers, which is reported and not used.
    TrainingOnly,
    /// It changes no forward pass.
    Ignored,
}

/// Messages that do not stop a file from being read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Notes {
    /// Keys that were understood but have no effect.
    pub(crate) notes: Vec<String>,
    /// Unknown keys.
    pub(crate) warnings: Vec<String>,
    /// The keys that were asked for.
    pub(crate) uses: BTreeMap<String, KeyUse>,
}

impl<'a> ConfigReader<'a> {
    pub(crate) fn new(value: &'a Value, origin: &'a Path) -> Result<Self> {
        match value.as_object() {
            Some(map) => Ok(Self::scoped(map, origin, "")),
            None => Err(Error::NotAnObject { origin: origin.to_owned() }),
        }
    }

    fn scoped(map: &'a Map<String, Value>, origin: &'a Path, scope: &'static str) -> Self {
        let (read, uses) = (BTreeSet::new(), BTreeMap::new());
        Self { map, origin, scope, read, uses, notes: Notes::default() }
    }

    /// A reader of the object under `key`. `scope` is `key.`, for messages; end it with [`Self::finish_section`].
    pub(crate) fn section(
        &mut self,
        key: &str,
        scope: &'static str,
    ) -> Result<Option<ConfigReader<'a>>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self::scoped(map, self.origin, scope))),
            Some(other) => Err(self.wrong_type(key, "an object", other)),
        }
    }

    pub(crate) fn origin(&self) -> &'a Path {
        self.origin
    }

    /// The value of `key`, which counts as read. Null is the same as absent.
    pub(crate) fn value(&mut self, key: &str) -> Option<&'a Value> {
        self.uses.insert(self.scoped_name(key), KeyUse::Honoured);
        self.get(key)
    }

    /// The value of `key`, which counts as read, whatever its effect.
    fn get(&mut self, key: &str) -> Option<&'a Value> {
        let (name, value) = self.map.get_key_value(key)?;
        self.read.insert(name);
        (!value.is_null()).then_some(value)
    }

    /// Marks keys as read whose values have no effect.
    pub(crate) fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.note_use(key, KeyUse::Ignored);
            self.get(key);
        }
    }

    /// Records the effect of a key, unless it has one already.
    fn note_use(&mut self, key: &str, effect: KeyUse) {
        self.uses.entry(self.scoped_name(key)).or_insert(effect);
    }

    fn scoped_name(&self, key: &str) -> String {
        format!("{}{key}", self.scope)
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

    /// The size under `key`, `None` if it is null, and `default` in files without the key.
    pub(crate) fn size_or_null(
        &mut self,
        key: &str,
        range: RangeInclusive<usize>,
        default: usize,
    ) -> Result<Option<usize>> {
        let found = self.size_or_none(key, range)?;
        Ok(found.or((!self.map.contains_key(key)).then_some(default)))
    }

    /// The number under `key`, `None` if it is null, and `default` in files without the key.
    pub(crate) fn float_or_null(
        &mut self,
        key: &str,
        range: RangeInclusive<f64>,
        default: Option<f64>,
    ) -> Result<Option<f64>> {
        let found = self.float_or_none(key, range)?;
        Ok(found.or(default.filter(|_| !self.map.contains_key(key))))
    }

    /// The size under `key` or under `alias`, another name for it that transformers accepts. Both must agree.
    pub(crate) fn size_with_alias(
        &mut self,
        key: &str,
        alias: &str,
        range: RangeInclusive<usize>,
    ) -> Result<usize> {
        let by_key = self.size_or_none(key, range.clone())?;
        let by_alias = self.size_or_none(alias, range)?;
        match (by_key, by_alias) {
            (Some(a), Some(b)) if a != b => {
                let message = format!("`{key}` is `{a}` but `{alias}`, its alias, is `{b}`");
                Err(self.inconsistent(message, Some(&format!("keep `{key}` only"))))
            }
            (Some(n), _) | (None, Some(n)) => Ok(n),
            (None, None) => Err(self.missing(key, None)),
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
                let (low, high) = (plain(*range.start()), plain(*range.end()));
                Err(self.out_of_range(key, format!("from {low} to {high}"), value))
            }
            None => Err(self.wrong_type(key, "a number", value)),
        }
    }

    /// A list of numbers.
    pub(crate) fn floats(&mut self, key: &str, range: RangeInclusive<f64>) -> Result<Vec<f64>> {
        let Some(value) = self.value(key) else { return Err(self.missing(key, None)) };
        let numbers = value.as_array().and_then(|list| {
            list.iter().map(|number| number.as_f64().filter(|x| range.contains(x))).collect()
        });
        numbers.ok_or_else(|| self.wrong_type(key, "a list of numbers above 0", value))
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

    /// Refuses `key` by name unless it is absent, null or accepted. `hint` lists the supported values.
    pub(crate) fn require(
        &mut self,
        key: &str,
        accepted: impl Fn(&Value) -> bool,
        hint: &str,
    ) -> Result<()> {
        self.note_use(key, KeyUse::Checked);
        match self.get(key) {
            Some(value) if !accepted(value) => Err(self.unsupported(key, value, hint)),
            _ => Ok(()),
        }
    }

    /// Reads dropout rates, which transformers applies in training only. Rates above 0 are noted and not used.
    pub(crate) fn training_dropout(&mut self, keys: &[&str]) -> Result<()> {
        for key in keys {
            let rate = self.float_or_none(key, 0.0..=1.0)?;
            self.uses.insert(self.scoped_name(key), KeyUse::TrainingOnly);
            if let Some(rate) = rate
                && rate > 0.0
            {
                self.note(format!(
                    "{}{key} = {rate} is a training setting and is not used: dropout is 0",
                    self.scope
                ));
            }
        }
        Ok(())
    }

    /// Reads the strength of a noise that transformers adds in training only. A strength above 0 is noted and not used.
    pub(crate) fn training_noise(&mut self, key: &str) -> Result<()> {
        let strength = self.float_or_none(key, 0.0..=1e6)?;
        self.uses.insert(self.scoped_name(key), KeyUse::TrainingOnly);
        if let Some(strength) = strength
            && strength > 0.0
        {
            self.note(format!("{key} = {strength} is a training setting and is not used"));
        }
        Ok(())
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.notes.push(note);
    }

    /// Ends reading the file. Keys that must be off are checked; other keys that have not been read become warnings.
    pub(crate) fn finish(mut self) -> Result<Notes> {
        for (key, off) in REQUIRED_OFF {
            self.require(key, |value| off.matches(value), "only models without it are supported")?;
        }
        // Noise on embeddings, which transformers adds in fine-tuning.
        self.training_noise("neftune_noise_alpha")?;
        self.warn_of_unknown_keys();
        self.notes.uses.append(&mut self.uses);
        Ok(self.notes)
    }

    /// Ends reading an object inside `outer`, which takes over its messages.
    pub(crate) fn finish_section(mut self, outer: &mut Self) {
        self.warn_of_unknown_keys();
        outer.notes.notes.append(&mut self.notes.notes);
        outer.notes.warnings.append(&mut self.notes.warnings);
        outer.uses.append(&mut self.uses);
    }

    fn warn_of_unknown_keys(&mut self) {
        for (key, value) in self.map {
            // A null enables nothing, whatever its key means.
            if self.read.contains(key.as_str()) || is_ignored(key) || value.is_null() {
                continue;
            }
            self.notes.warnings.push(format!(
                "{}: unknown key `{}{}` is ignored: `{}`",
                self.origin.display(),
                self.scope,
                shorten(key),
                shorten(&value_text(value)),
            ));
        }
    }

    pub(crate) fn missing(&self, key: &str, hint: Option<&str>) -> Error {
        Error::MissingKey {
            origin: self.origin.to_owned(),
            key: format!("{}{key}", self.scope),
            hint: Some(hint.unwrap_or("config.json must describe the whole model").to_owned()),
        }
    }

    pub(crate) fn unsupported(&self, key: &str, value: &Value, hint: &str) -> Error {
        Error::Unsupported {
            origin: self.origin.to_owned(),
            key: format!("{}{key}", self.scope),
            found: shorten(&value_text(value)),
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
            found: shorten(&value_text(value)),
        }
    }

    fn out_of_range(&self, key: &str, expected: String, value: &Value) -> Error {
        Error::OutOfRange {
            origin: self.origin.to_owned(),
            key: format!("{}{key}", self.scope),
            expected,
            found: shorten(&value_text(value)),
        }
    }
}

/// A bound in a message, in scientific notation where it would have many zeros.
fn plain(number: f64) -> String {
    if number == 0.0 || (1e-3..=1e4).contains(&number) {
        number.to_string()
    } else {
        format!("{number:e}")
    }
}

fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

/// Text from a file for a message: at most 60 characters.
fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
