//! The pre-tokenizer of a tokenizer.json, step by step.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tokenizers::pattern::Invert;
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::{
    PreTokenizedString, PreTokenizer, PreTokenizerWrapper, Result, SplitDelimiterBehavior,
};

use super::pattern::BoundedRegex;
use super::spend_time;

/// A pre-tokenizer whose patterns are limited. Its other steps take time in proportion to the text, and `tokenizer_json`
/// limits how many of them make it longer.
#[derive(Debug, Clone)]
pub(crate) struct BoundedPreTokenizer {
    inner: PreTokenizerWrapper,
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
enum Step {
    Split { regex: Arc<BoundedRegex>, behavior: SplitDelimiterBehavior, invert: bool },
    Other(PreTokenizerWrapper),
}

impl PreTokenizer for BoundedPreTokenizer {
    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> Result<()> {
        for step in &self.steps {
            spend_time(|| "the pre-tokenizer".to_owned())?;
            match step {
                Step::Split { regex, behavior, invert: true } => {
                    text.split(|_, part| part.split(Invert(regex.as_ref()), *behavior))?;
                }
                Step::Split { regex, behavior, invert: false } => {
                    text.split(|_, part| part.split(regex.as_ref(), *behavior))?;
                }
                Step::Other(other) => other.pre_tokenize(text)?,
            }
        }
        Ok(())
    }
}

impl Step {
    fn list(inner: &PreTokenizerWrapper, steps: &mut Vec<Self>) -> std::result::Result<(), String> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "all other kinds run as they are")]
        match inner {
            PreTokenizerWrapper::Sequence(sequence) => {
                sequence.as_ref().iter().try_for_each(|inner| Self::list(inner, steps))?;
            }
            PreTokenizerWrapper::Split(split) => match &split.pattern {
                SplitPattern::Regex(source) => steps.push(Self::Split {
                    regex: Arc::new(BoundedRegex::new(source)?),
                    behavior: split.behavior,
                    invert: split.invert,
                }),
                SplitPattern::String(_) => steps.push(Self::Other(inner.clone())),
            },
            other => steps.push(Self::Other(other.clone())),
        }
        Ok(())
    }
}

impl Serialize for BoundedPreTokenizer {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.inner.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BoundedPreTokenizer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let inner = PreTokenizerWrapper::deserialize(deserializer)?;
        let mut steps = Vec::new();
        Step::list(&inner, &mut steps).map_err(de::Error::custom)?;
        Ok(Self { inner, steps })
    }
}
