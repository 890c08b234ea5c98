//! The decoder of a tokenizer.json, step by step.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tokenizers::pattern::Pattern;
use tokenizers::{Decoder, DecoderWrapper, Result};

use super::normalizer::{Replaced, Replacement};
use super::{bytes_left, spend_bytes, spend_time};

/// A decoder whose text is measured after each step.
#[derive(Debug, Clone)]
pub(crate) struct BoundedDecoder {
    inner: DecoderWrapper,
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
enum Step {
    Replace(Replacement),
    Other(DecoderWrapper),
}

impl Decoder for BoundedDecoder {
    fn decode_chain(&self, mut tokens: Vec<String>) -> Result<Vec<String>> {
        for step in &self.steps {
            let name = || match step {
                Step::Replace(replacement) => replacement.name(),
                Step::Other(_) => "the decoder".to_owned(),
            };
            spend_time(name)?;
            tokens = match step {
                Step::Replace(replacement) => {
                    let sizes = tokens.iter().map(|token| replacement.largest_size(token));
                    let largest = sizes.fold(0usize, usize::saturating_add);
                    if bytes_left().is_some_and(|left| largest > left) {
                        spend_bytes(largest, name)?;
                    }
                    tokens.iter().map(|token| replace(token, replacement)).collect::<Result<_>>()?
                }
                Step::Other(other) => other.decode_chain(tokens)?,
            };
            let size: usize = tokens.iter().map(String::len).sum();
            if bytes_left().is_some_and(|left| size > left) {
                spend_bytes(size, name)?;
            }
        }
        Ok(tokens)
    }
}

fn replace(token: &str, replacement: &Replacement) -> Result<String> {
    let regex = match &replacement.pattern {
        Replaced::Text(text, _) => return Ok(token.replace(text.as_str(), &replacement.content)),
        Replaced::Regex(regex) => regex.as_ref(),
    };
    let mut out = String::with_capacity(token.len());
    for ((start, end), is_match) in regex.find_matches(token)? {
        let kept = token.get(start..end).unwrap_or_default();
        out.push_str(if is_match { &replacement.content } else { kept });
    }
    Ok(out)
}

impl Step {
    fn list(inner: &DecoderWrapper, steps: &mut Vec<Self>) -> std::result::Result<(), String> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "all other kinds run as they are")]
        match inner {
            DecoderWrapper::Sequence(sequence) => {
                sequence.get_decoders().iter().try_for_each(|inner| Self::list(inner, steps))?;
            }
            DecoderWrapper::Replace(replace) => {
                steps.push(Self::Replace(Replacement::of(replace)?));
            }
            other => steps.push(Self::Other(other.clone())),
        }
        Ok(())
    }
}

impl Serialize for BoundedDecoder {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.inner.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BoundedDecoder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let inner = DecoderWrapper::deserialize(deserializer)?;
        let mut steps = Vec::new();
        Step::list(&inner, &mut steps).map_err(de::Error::custom)?;
        Ok(Self { inner, steps })
    }
}
