//! vocab.json and merges.txt: byte-level BPE of the classes of GPT-2 and Qwen2.

use std::path::Path;

use fsio::limits;
use serde_json::{Map, Value, json};

use super::{Converted, class, refused, set_default, unknown_class};
use crate::Result;

/// Pattern that splits text in Qwen2.
const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Special token of both classes, unless the config names others.
const END_OF_TEXT: &str = "<|endoftext|>";

/// Converts the two files of a directory.
pub(super) fn convert(dir: &Path, config: &mut Map<String, Value>) -> Result<Converted> {
    let path = dir.join("vocab.json");
    let text = fsio::read_text_capped(&path, limits::TOKENIZER_BYTES)?;
    let vocab: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|error| refused(&path, format!("not a vocabulary: {error}")))?;
    let merges = fsio::read_text_capped(dir.join("merges.txt"), limits::TOKENIZER_BYTES)?;
    let merges: Vec<&str> = merges
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with("#version"))
        .collect();
    let prefix_space = config.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(false);
    let byte_level = |use_regex: bool| {
        json!({"type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": true,
            "use_regex": use_regex})
    };
    let has_end = vocab.contains_key(END_OF_TEXT);
    let (normalizer, pre_tokenizer, defaults): (_, _, &[&str]) = match class(config) {
        None | Some("GPT2Tokenizer") => {
            (Value::Null, byte_level(true), &["bos_token", "eos_token", "unk_token"])
        }
        Some("Qwen2Tokenizer") => {
            let split = json!({"type": "Split", "pattern": {"Regex": QWEN2_PATTERN},
                "behavior": "Isolated", "invert": false});
            let parts = json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]});
            (json!({"type": "NFC"}), parts, &["eos_token", "unk_token", "pad_token"])
        }
        Some(other) => return Err(unknown_class(&path, other)),
    };
    for key in defaults.iter().filter(|_| has_end) {
        set_default(config, key, END_OF_TEXT);
    }
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
            "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocab, "merges": merges,
        },
    });
    Ok(Converted { path, json: json.to_string() })
}
