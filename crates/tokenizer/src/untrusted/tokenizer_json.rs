//! Checks a tokenizer.json before the tokenizers library reads it.
//!
//! The library trusts its input: it accepts any id, panics on some inconsistencies and runs any
//! pattern. Each refusal here contains the offending value.

use std::borrow::Cow;
use std::fmt;

use fsio::limits;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::{json_limits, regex};

/// Number of ids below the largest one that may be unused, as in some published vocabularies.
const HOLES: usize = 4096;
/// Maximum length of a token in bytes.
const TOKEN_BYTES: usize = 4096;

/// An added token of the file.
#[derive(Debug, Deserialize)]
pub(crate) struct AddedToken {
    pub(crate) id: u32,
    pub(crate) content: String,
}

#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    dropout: Option<f64>,
    vocab: Vocabulary,
}

/// Ids of the model's vocabulary; in a list (Unigram) the position is the id.
struct Vocabulary {
    ids: Vec<u32>,
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(VocabularyVisitor)
    }
}

struct VocabularyVisitor;

impl<'de> Visitor<'de> for VocabularyVisitor {
    type Value = Vocabulary;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a vocabulary: a map from tokens to ids, or a list of tokens with scores")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
        let mut ids = Vec::new();
        while let Some((token, id)) = map.next_entry::<Cow<str>, u32>()? {
            if token.len() > TOKEN_BYTES {
                let bytes = token.len();
                return Err(serde::de::Error::custom(format!("a token of {bytes} bytes")));
            }
            ids.push(id);
        }
        Ok(Vocabulary { ids })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vocabulary, A::Error> {
        let mut count = 0;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Vocabulary { ids: (0..count).collect() })
    }
}

/// Reason for refusing a tokenizer.json, and advice.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) hint: Option<String>,
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self { reason, hint: None }
    }
}

/// Parts of a valid tokenizer.json that the caller needs.
pub(crate) struct Checked {
    /// Added tokens with the ids in the file, which the library does not compare.
    pub(crate) added: Vec<AddedToken>,
    /// Largest id plus one.
    pub(crate) n_ids: usize,
}

/// Checks `json` before the library reads it.
pub(crate) fn check(json: &str) -> Result<Checked, Refusal> {
    json_limits::check(json)?;
    let file: TokenizerJson =
        serde_json::from_str(json).map_err(|e| format!("not a tokenizer: {e}"))?;
    if let Some(dropout) = file.model.dropout.filter(|p| *p != 0.0) {
        return Err(Refusal {
            reason: format!("the model drops merges at random: `dropout` is `{dropout}`"),
            hint: Some(
                "set model.dropout to null, so that ids do not change from run to run".to_owned(),
            ),
        });
    }
    let entries = file.model.vocab.ids.len() + file.added_tokens.len();
    if entries > limits::TOKENIZER_ENTRIES {
        let limit = limits::TOKENIZER_ENTRIES;
        return Err(format!("{entries} entries, more than the limit of {limit}").into());
    }
    for added in &file.added_tokens {
        if added.content.is_empty() || added.content.len() > TOKEN_BYTES {
            return Err(format!("added token `{}` is empty or too long", added.id).into());
        }
    }
    let n_ids = n_ids(&file)?;
    for part in [&file.normalizer, &file.pre_tokenizer, &file.decoder] {
        patterns(part)?;
    }
    Ok(Checked { added: file.added_tokens, n_ids })
}

/// Checks that each id occurs once and that nearly all ids below the largest one are used; returns
/// the largest plus one.
fn n_ids(file: &TokenizerJson) -> Result<usize, Refusal> {
    let mut ids = file.model.vocab.ids.clone();
    ids.sort_unstable();
    if let Some(pair) = ids.windows(2).find(|pair| pair.first() == pair.last()) {
        let id = pair.first().copied().unwrap_or_default();
        return Err(format!("two tokens have the same id: `{id}`").into());
    }
    ids.extend(file.added_tokens.iter().map(|a| a.id));
    ids.sort_unstable();
    ids.dedup();
    match ids.last() {
        None => Err("the vocabulary is empty".to_owned().into()),
        Some(&largest) if largest as usize >= ids.len() + HOLES => {
            let n = ids.len();
            Err(format!("ids are not dense: the largest is `{largest}` among {n} tokens").into())
        }
        Some(&largest) => Ok(largest as usize + 1),
    }
}

/// Checks all regular expressions in a part of the file.
fn patterns(value: &Value) -> Result<(), Refusal> {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match (key.as_str(), inner) {
                    ("Regex", Value::String(text)) => regex::check(text)?,
                    _ => patterns(inner)?,
                }
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(patterns),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}
