//! The normalizer of a tokenizer.json, step by step.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper, Result};

use super::pattern::BoundedRegex;
use super::{bytes_left, shown, spend_bytes, spend_time};

/// A normalizer whose text is measured after each step.
#[derive(Debug, Clone)]
pub(crate) struct BoundedNormalizer {
    inner: NormalizerWrapper,
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
enum Step {
    Replace(Replacement),
    Other(NormalizerWrapper),
}

/// A `Replace` of a normalizer or a decoder.
#[derive(Debug, Clone)]
pub(super) struct Replacement {
    pub(super) pattern: Replaced,
    pub(super) content: String,
}

#[derive(Debug, Clone)]
pub(super) enum Replaced {
    /// A text, and a pattern that matches it in time proportional to the text that is searched.
    Text(String, regex::Regex),
    Regex(Arc<BoundedRegex>),
}

impl Replacement {
    /// The replacement that `step`, a part of a tokenizer.json, describes.
    pub(super) fn of(step: &impl Serialize) -> std::result::Result<Self, String> {
        let json = serde_json::to_value(step).map_err(|e| e.to_string())?;
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let pattern = json.get("pattern");
        let pattern = match text(pattern.and_then(|pattern| pattern.get("Regex"))) {
            Some(source) => Replaced::Regex(Arc::new(BoundedRegex::new(&source)?)),
            None => {
                let text = text(pattern.and_then(|pattern| pattern.get("String")));
                Self::literal(text.unwrap_or_default())?
            }
        };
        Ok(Self { pattern, content: text(json.get("content")).unwrap_or_default() })
    }

    /// An empty text matches between all characters, as in the library.
    fn literal(text: String) -> std::result::Result<Replaced, String> {
        if text.is_empty() {
            return Ok(Replaced::Regex(Arc::new(BoundedRegex::new("")?)));
        }
        let regex = regex::Regex::new(&regex::escape(&text)).map_err(|e| e.to_string())?;
        Ok(Replaced::Text(text, regex))
    }

    pub(super) fn name(&self) -> String {
        match &self.pattern {
            Replaced::Text(text, _) => format!("the replacement of {}", shown(text)),
            Replaced::Regex(regex) => format!("the replacement of {}", regex.name()),
        }
    }

    /// Largest number of bytes that the replacement can make of `text`.
    pub(super) fn largest_size(&self, text: &str) -> usize {
        let most = match &self.pattern {
            Replaced::Text(pattern, _) => {
                let fits = bytes_left()
                    .is_none_or(|left| text.len().saturating_mul(self.content.len()) <= left);
                // Counting takes longer than a bound.
                if fits { text.len() } else { text.matches(pattern.as_str()).count() }
            }
            Replaced::Regex(_) => text.chars().count() + 1,
        };
        text.len().saturating_add(most.saturating_mul(self.content.len()))
    }
}

impl Normalizer for BoundedNormalizer {
    fn normalize(&self, normalized: &mut NormalizedString) -> Result<()> {
        for step in &self.steps {
            let name = || step.name();
            spend_time(name)?;
            match step {
                Step::Replace(replacement) => {
                    let largest = replacement.largest_size(normalized.get());
                    if bytes_left().is_some_and(|left| largest > left) {
                        spend_bytes(largest, name)?;
                    }
                    let content = &replacement.content;
                    match &replacement.pattern {
                        Replaced::Text(_, regex) => normalized.replace(regex, content)?,
                        Replaced::Regex(regex) => normalized.replace(regex.as_ref(), content)?,
                    }
                }
                Step::Other(other) => other.normalize(normalized)?,
            }
            if bytes_left().is_some_and(|left| normalized.len() > left) {
                spend_bytes(normalized.len(), name)?;
            }
        }
        // The pieces of a text between its added tokens share its budget.
        let len = normalized.len();
        spend_bytes(len, || "the normalizer".to_owned())?;
        Ok(())
    }
}

impl Step {
    fn name(&self) -> String {
        match self {
            Self::Replace(replacement) => replacement.name(),
            Self::Other(_) => "the normalizer".to_owned(),
        }
    }

    fn list(inner: &NormalizerWrapper, steps: &mut Vec<Self>) -> std::result::Result<(), String> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "all other kinds run as they are")]
        match inner {
            NormalizerWrapper::Sequence(sequence) => {
                sequence.as_ref().iter().try_for_each(|inner| Self::list(inner, steps))?;
            }
            NormalizerWrapper::Replace(replace) => {
                steps.push(Self::Replace(Replacement::of(replace)?));
            }
            other => steps.push(Self::Other(other.clone())),
        }
        Ok(())
    }
}

impl Serialize for BoundedNormalizer {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.inner.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BoundedNormalizer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let inner = NormalizerWrapper::deserialize(deserializer)?;
        let mut steps = Vec::new();
        Step::list(&inner, &mut steps).map_err(de::Error::custom)?;
        Ok(Self { inner, steps })
    }
}
