//! vocab.txt: WordPiece of the class of BERT.

use std::path::Path;

use fsio::limits;
use serde_json::{Map, Value, json};

use super::{Converted, added_token, check_count, class, set_default, unknown_class};
use crate::Result;
use crate::config_values::token_text;
use crate::load::post_processor;

/// Special tokens of the class by their config keys.
const SPECIALS: [(&str, &str); 5] = [
    ("pad_token", "[PAD]"),
    ("unk_token", "[UNK]"),
    ("cls_token", "[CLS]"),
    ("sep_token", "[SEP]"),
    ("mask_token", "[MASK]"),
];

/// Converts a vocabulary with one token per line; the number of a line is the id.
pub(super) fn convert(path: &Path, config: &mut Map<String, Value>) -> Result<Converted> {
    if let Some(other) = class(config).filter(|class| *class != "BertTokenizer") {
        return Err(unknown_class(path, other));
    }
    let text = fsio::read_text_capped(path, limits::TOKENIZER_BYTES)?;
    check_count(path, text.lines().count())?;
    let tokens: Vec<&str> = text.lines().collect();
    let vocab: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect();
    let mut added = Vec::new();
    for (key, usual) in SPECIALS {
        set_default(config, key, usual);
        let content = config.get(key).and_then(token_text).unwrap_or(usual).to_owned();
        if let Some(id) = tokens.iter().position(|token| **token == content) {
            added.push((id, content));
        }
    }
    let text_of = |key: &str| config.get(key).and_then(token_text).unwrap_or_default().to_owned();
    let around = |key: &str| {
        let content = text_of(key);
        let id = tokens.iter().position(|token| **token == content)?;
        Some((content, u32::try_from(id).ok()?))
    };
    let flag =
        |key: &str, default: bool| config.get(key).and_then(Value::as_bool).unwrap_or(default);
    let strip_accents = config.get("strip_accents").cloned().unwrap_or(Value::Null);
    added.sort_unstable();
    let added: Vec<Value> =
        added.iter().map(|(id, content)| added_token(*id, content, true)).collect();
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": flag("tokenize_chinese_chars", true),
            "strip_accents": strip_accents, "lowercase": flag("do_lower_case", true)},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": post_processor(around("cls_token").as_ref(), around("sep_token").as_ref()),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": text_of("unk_token"),
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab},
    });
    Ok(Converted { path: path.to_owned(), json: json.to_string() })
}
