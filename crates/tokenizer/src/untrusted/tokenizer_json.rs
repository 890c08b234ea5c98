//! Checks a tokenizer.json before the tokenizers library reads it.
//!
//! The library trusts its input: it accepts any id, panics on some inconsistencies and runs any
//! pattern. Each refusal here contains the offending value.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fsio::limits;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::post_processor;
use super::{json_limits, regex};

/// Number of ids below the largest one that may be unused, as in some published vocabularies.
const HOLES: usize = 4096;
/// Maximum length of a token in bytes.
const TOKEN_BYTES: usize = 4096;
/// Maximum length of all added tokens together, in bytes. Published tokenizers have less than 200 kB.
const ADDED_BYTES: usize = 1 << 20;
/// Maximum length of a token of a Unigram model, which is looked for at each position of a text.
const UNIGRAM_TOKEN_BYTES: usize = 1024;
/// Maximum length of a text that a step writes, such as the content of a replacement.
const WRITTEN_BYTES: usize = 1024;
/// Maximum length of the texts that a model writes around each character.
const AFFIX_BYTES: usize = 64;
/// Maximum length of a word that WordPiece splits; a longer one is unknown. Published models have 100. The time grows with
/// the cube of the length.
const WORD_CHARS: u64 = 1000;
/// Maximum length of all regular expressions together. Compiled, a class of characters takes kilobytes.
const PATTERNS_BYTES: usize = 32 << 10;
/// Bytes of a text that is searched for as it is that count as one byte of a regular expression.
const LITERAL_BYTES: usize = 16;
/// Maximum number of steps that make a text longer in a pre-tokenizer.
const GROWING_STEPS: usize = 2;

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
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    dropout: Option<f64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    max_input_chars_per_word: Option<u64>,
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
        while let Some((token, _)) = seq.next_element::<(Cow<str>, IgnoredAny)>()? {
            if token.len() > UNIGRAM_TOKEN_BYTES {
                let bytes = token.len();
                return Err(serde::de::Error::custom(format!("a token of {bytes} bytes")));
            }
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
    /// Tokens that the post-processor adds, with their ids.
    pub(crate) of_post_processor: Vec<(String, u64)>,
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
    let bytes: usize = file.added_tokens.iter().map(|added| added.content.len()).sum();
    if bytes > ADDED_BYTES {
        return Err(format!("the added tokens have {bytes} bytes (limit {ADDED_BYTES})").into());
    }
    let n_ids = n_ids(&file)?;
    check_model(&file.model)?;
    let mut patterns_left = PATTERNS_BYTES;
    for part in [&file.normalizer, &file.pre_tokenizer, &file.decoder] {
        check_step(part, &mut patterns_left)?;
    }
    let n_growing = count_steps(&file.pre_tokenizer, &["ByteLevel", "Metaspace"]);
    if n_growing > GROWING_STEPS {
        let reason = format!("a pre-tokenizer with {n_growing} steps that make a text longer");
        return Err(reason.into());
    }
    let of_post_processor = post_processor::added_tokens(&file.post_processor)?;
    Ok(Checked { added: file.added_tokens, n_ids, of_post_processor })
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

fn check_model(model: &Model) -> Result<(), Refusal> {
    for (key, affix) in [
        ("continuing_subword_prefix", &model.continuing_subword_prefix),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        let bytes = affix.as_ref().map_or(0, String::len);
        if bytes > AFFIX_BYTES {
            return Err(format!("`{key}` has {bytes} bytes, more than {AFFIX_BYTES}").into());
        }
    }
    match model.max_input_chars_per_word {
        Some(chars) if chars > WORD_CHARS => Err(Refusal {
            reason: format!("`max_input_chars_per_word` is `{chars}`, more than {WORD_CHARS}"),
            hint: Some("published models have 100".to_owned()),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Checks the regular expressions in a part of the file, and the length of the texts that it searches and writes.
/// `left` is the number of bytes that further patterns may have.
fn check_step(value: &Value, left: &mut usize) -> Result<(), Refusal> {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match (key.as_str(), inner) {
                    ("Regex", Value::String(text)) => {
                        regex::check(text)?;
                        take_pattern(text.len(), left)?;
                    }
                    ("String", Value::String(text)) => {
                        take_pattern(text.len() / LITERAL_BYTES, left)?;
                    }
                    ("precompiled_charsmap", Value::String(text)) => check_charsmap(text)?,
                    (
                        "content"
                        | "prepend"
                        | "prefix"
                        | "suffix"
                        | "replacement"
                        | "word_delimiter_token",
                        Value::String(text),
                    ) if text.len() > WRITTEN_BYTES => {
                        let bytes = text.len();
                        return Err(
                            format!("`{key}` has {bytes} bytes (limit {WRITTEN_BYTES})").into()
                        );
                    }
                    _ => check_step(inner, left)?,
                }
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(|item| check_step(item, left)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Takes a pattern of `bytes` from what is left for all patterns of the file.
fn take_pattern(bytes: usize, left: &mut usize) -> Result<(), Refusal> {
    match left.checked_sub(bytes) {
        Some(rest) => {
            *left = rest;
            Ok(())
        }
        None => Err(Refusal {
            reason: format!("the patterns have more than {PATTERNS_BYTES} bytes together"),
            hint: Some("published tokenizers have less than 2,000".to_owned()),
        }),
    }
}

/// Checks the length of the texts in a sentencepiece map of characters: a size, a trie of that size, and the texts with
/// which it replaces characters, each ended by a zero.
fn check_charsmap(encoded: &str) -> Result<(), Refusal> {
    let Ok(bytes) = BASE64_STANDARD.decode(encoded) else {
        return Err("`precompiled_charsmap` is not base64".to_owned().into());
    };
    let texts = bytes.first_chunk::<4>().and_then(|size| {
        let size = u32::from_le_bytes(*size) as usize;
        bytes.get(4usize.checked_add(size)?..)
    });
    let Some(texts) = texts else {
        return Err("`precompiled_charsmap` ends before its trie does".to_owned().into());
    };
    let longest = texts.split(|byte| *byte == 0).map(<[u8]>::len).max().unwrap_or(0);
    if longest > WRITTEN_BYTES {
        let reason = format!("`precompiled_charsmap` replaces a character with {longest} bytes");
        return Err(reason.into());
    }
    Ok(())
}

/// Number of steps of the given types in a part of the file.
fn count_steps(value: &Value, types: &[&str]) -> usize {
    match value {
        Value::Object(map) => {
            let own = map.get("type").and_then(Value::as_str).is_some_and(|t| types.contains(&t));
            usize::from(own) + map.values().map(|inner| count_steps(inner, types)).sum::<usize>()
        }
        Value::Array(items) => items.iter().map(|inner| count_steps(inner, types)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}
