//! Trains byte-level BPE and character tokenizers; the same texts give the same bytes.
//!
//! Training produces a tokenizer.json, which the tokenizers library then loads, so a trained
//! tokenizer behaves exactly like a loaded one.

mod merges;
mod words;

use std::collections::{BTreeSet, HashSet};

use serde_json::{Value, json};

use crate::backend::{EOS_NAMES, PAD_NAMES, SpecialTokenNames, UNK_NAMES};
use crate::byte_alphabet::byte_alphabet;
use crate::load::post_processor;
use crate::{Error, Result, Tokenizer};

/// Token that ends each document and precedes the first one.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Token of a character tokenizer for characters outside its vocabulary.
pub const UNKNOWN: &str = "<|unk|>";

/// Special tokens of a trained tokenizer, unless the recipe lists others.
pub fn default_special_tokens() -> Vec<String> {
    [END_OF_TEXT, "<|im_start|>", "<|im_end|>", "<|pad|>"].map(str::to_owned).to_vec()
}

impl Tokenizer {
    /// Trains a byte-level BPE of at most `vocab_size` tokens, special tokens included.
    ///
    /// Texts are split into words like in GPT-2. A pair must occur twice to be merged, so a small
    /// text may give fewer tokens. Of pairs with the same count, the one with the greater bytes is
    /// merged first: the result depends on the texts alone, not on their order, threads or hashing.
    pub fn train_byte_bpe(
        texts: impl Iterator<Item = String>,
        vocab_size: usize,
        specials: &[String],
    ) -> Result<Self> {
        let names = special_token_names(specials)?;
        let alphabet = byte_alphabet();
        let least = specials.len() + alphabet.len();
        if vocab_size < least {
            return Err(Error::Training {
                reason: format!(
                    "`vocab_size` is `{vocab_size}`, but bytes and special tokens need {least}"
                ),
                hint: format!("set vocab_size to {least} or more"),
            });
        }
        if vocab_size > fsio::limits::TOKENIZER_ENTRIES {
            return Err(Error::Training {
                reason: format!("`vocab_size` is `{vocab_size}`"),
                hint: format!("the limit is {}", fsio::limits::TOKENIZER_ENTRIES),
            });
        }
        let words = words::count(texts, specials)?;
        let merges = merges::learn(words, vocab_size - least);
        let spell = |bytes: &[u8]| -> String {
            bytes.iter().filter_map(|b| alphabet.get(*b as usize)).collect()
        };
        let mut tokens: Vec<String> = specials.to_vec();
        let mut letters: Vec<char> = alphabet.clone();
        letters.sort_unstable();
        tokens.extend(letters.into_iter().map(String::from));
        let mut spelt = HashSet::new();
        let mut pairs = Vec::with_capacity(merges.len());
        for merge in &merges {
            let (left, right) = (spell(&merge.left), spell(&merge.right));
            let token = format!("{left}{right}");
            // Two merges may spell the same token.
            if spelt.insert(token.clone()) {
                tokens.push(token);
            }
            pairs.push(json!([left, right]));
        }
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let parts = Parts { pre_tokenizer: byte_level.clone(), decoder: byte_level, merges: pairs };
        assemble(&tokens, specials, &names, parts)
    }

    /// Trains a tokenizer with one token per character (Unicode scalar value, as in Python).
    ///
    /// Adds `<|unk|>` for characters that do not occur in the texts.
    pub fn train_char(texts: impl Iterator<Item = String>, specials: &[String]) -> Result<Self> {
        let mut specials = specials.to_vec();
        if !specials.iter().any(|s| UNK_NAMES.contains(&s.as_str())) {
            specials.push(UNKNOWN.to_owned());
        }
        let names = special_token_names(&specials)?;
        let mut characters = BTreeSet::new();
        for text in texts {
            for piece in words::outside_specials(&text, &specials) {
                characters.extend(piece.chars());
            }
        }
        if characters.is_empty() {
            return Err(empty());
        }
        let mut tokens = specials.clone();
        tokens.extend(characters.into_iter().map(String::from));
        // BPE without merges and without a pre-tokenizer: each character is a token, including line
        // feeds and spaces, and a text of a million characters stays one piece.
        let parts = Parts {
            pre_tokenizer: Value::Null,
            decoder: json!({"type": "Fuse"}),
            merges: Vec::new(),
        };
        assemble(&tokens, &specials, &names, parts)
    }
}

struct Parts {
    pre_tokenizer: Value,
    decoder: Value,
    merges: Vec<Value>,
}

fn assemble(
    tokens: &[String],
    specials: &[String],
    names: &SpecialTokenNames,
    parts: Parts,
) -> Result<Tokenizer> {
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    let added: Vec<Value> = specials
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    let eos = names.eos.as_ref().and_then(|eos| {
        let id = specials.iter().position(|s| s == eos)?;
        Some((eos.clone(), id as u32))
    });
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": parts.pre_tokenizer,
        "post_processor": post_processor(eos.as_ref(), None),
        "decoder": parts.decoder,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": names.unk,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": parts.merges,
        },
    });
    Tokenizer::from_trained(&json.to_string(), names)
}

/// Assigns roles to the special tokens by their names; refuses lists that cannot work.
fn special_token_names(specials: &[String]) -> Result<SpecialTokenNames> {
    for (idx, special) in specials.iter().enumerate() {
        let refuse = |why: &str| {
            Err(Error::Training {
                reason: format!("special token `{special}` {why}"),
                hint: "write special tokens like `<|name|>`, each of them once".to_owned(),
            })
        };
        if special.chars().count() < 2 {
            return refuse("has fewer than two characters");
        }
        if specials.iter().skip(idx + 1).any(|other| other == special) {
            return refuse("is listed twice");
        }
    }
    let find = |names: &[&str]| {
        names.iter().find_map(|name| specials.iter().find(|s| s.as_str() == *name)).cloned()
    };
    let Some(eos) = find(&EOS_NAMES) else {
        return Err(Error::Training {
            reason: "no end-of-text token among the special tokens".to_owned(),
            hint: format!("add `{END_OF_TEXT}` to special_tokens"),
        });
    };
    let pad = find(&PAD_NAMES).unwrap_or_else(|| eos.clone());
    Ok(SpecialTokenNames { eos: Some(eos), pad: Some(pad), unk: find(&UNK_NAMES) })
}

fn empty() -> Error {
    Error::Training {
        reason: "the texts are empty".to_owned(),
        hint: "check the data that the tokenizer is trained on".to_owned(),
    }
}
