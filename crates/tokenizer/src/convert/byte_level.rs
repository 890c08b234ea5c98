//! vocab.json and merges.txt: byte-level BPE of the classes of GPT-2 and Qwen2.

use std::path::Path;

use fsio::limits;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value, json};

use super::{Converted, check_count, class, refused, set_default, unknown_class};
use crate::Result;

/// Pattern that splits text in Qwen2.
const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Special token of both classes, unless the config names others.
const END_OF_TEXT: &str = "<|endoftext|>";

/// Converts the two files of a directory.
pub(super) fn convert(dir: &Path, config: &mut Map<String, Value>) -> Result<Converted> {
    let path = dir.join("vocab.json");
    let text = fsio::read_text_capped(&path, limits::TOKENIZER_BYTES)?;
    let wrong = |error: serde_json::Error| refused(&path, format!("not a vocabulary: {error}"));
    let Entries(n_tokens) = serde_json::from_str(&text).map_err(wrong)?;
    check_count(&path, n_tokens)?;
    let vocab: Map<String, Value> = serde_json::from_str(&text).map_err(wrong)?;
    let merges_path = dir.join("merges.txt");
    let merges = fsio::read_text_capped(&merges_path, limits::TOKENIZER_BYTES)?;
    check_count(&merges_path, merges.lines().count())?;
    let merges = merge_lines(&merges_path, &merges, &vocab)?;
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

/// The lines of merges.txt that are merges: two tokens that make a third one.
fn merge_lines<'a>(path: &Path, text: &'a str, vocab: &Map<String, Value>) -> Result<Vec<&'a str>> {
    let mut merges = Vec::new();
    for (number, line) in (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).lines()) {
        if line.trim().is_empty() || line.starts_with("#version") {
            continue;
        }
        let pair = line.split_once(' ').filter(|(_, right)| !right.contains(' '));
        let Some((left, right)) = pair else {
            return Err(refused(path, format!("line {number}: `{line}` is not two tokens")));
        };
        let unknown = [left.to_owned(), right.to_owned(), format!("{left}{right}")];
        if let Some(token) = unknown.into_iter().find(|token| !vocab.contains_key(token)) {
            let reason = format!("line {number}: `{token}` is not a token of vocab.json");
            return Err(refused(path, reason));
        }
        merges.push(line);
    }
    Ok(merges)
}

/// Number of entries of a JSON object, which is counted before it is built.
struct Entries(usize);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map from tokens to ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entries, A::Error> {
        let mut count = 0;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Entries(count))
    }
}
