//! Pre-tokenizers of byte-level BPE: llama.cpp's names and their form in tokenizer.json.

use serde_json::{Value as Json, json};

/// A pre-tokenizer that llama.cpp knows.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    /// Values of `tokenizer.ggml.pre`; the first is written.
    pub(super) names: &'static [&'static str],
    split: Split,
    /// Words that are tokens are not merged.
    pub(super) ignores_merges: bool,
    /// Whether bos stands before texts if the file does not say.
    pub(super) adds_bos: bool,
    /// Texts are brought to NFC first in tokenizer.json.
    composes: bool,
}

/// Rule that splits a text into words.
#[derive(Debug)]
enum Split {
    /// GPT-2's pattern.
    Gpt2,
    /// Single digits, then GPT-2's pattern.
    DigitsThenGpt2,
    /// Patterns one after the other.
    Patterns(&'static [&'static str]),
}

const GPT2_PATTERN: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN_PATTERN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O_PATTERN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Contractions as llama.cpp spells them, and as tokenizer.json files do.
const CONTRACTIONS: [&str; 2] =
    ["(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", "(?i:'s|'t|'re|'ve|'m|'ll|'d)"];

const DEFAULT: PreTokenizer = PreTokenizer {
    names: &["default"],
    split: Split::Patterns(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2_PATTERN, r"\p{N}+", "[0-9][0-9][0-9]"]),
    ignores_merges: false,
    adds_bos: false,
    composes: false,
};

const TABLE: &[PreTokenizer] = &[
    PreTokenizer {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "exaone4",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
        ],
        split: Split::Gpt2,
        ..DEFAULT
    },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        split: Split::DigitsThenGpt2,
        ..DEFAULT
    },
    PreTokenizer {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        split: Split::Patterns(&[LLAMA3_PATTERN]),
        ignores_merges: true,
        adds_bos: true,
        ..DEFAULT
    },
    PreTokenizer {
        names: &["smaug-bpe", "dbrx", "chatglm-bpe", "glm4"],
        split: Split::Patterns(&[LLAMA3_PATTERN]),
        ..DEFAULT
    },
    PreTokenizer {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "hunyuan",
            "megrez",
            "kormo",
            "f2llmv2",
            "solar-open",
        ],
        split: Split::Patterns(&[QWEN2_PATTERN]),
        composes: true,
        ..DEFAULT
    },
    PreTokenizer { names: &["stablelm2"], split: Split::Patterns(&[QWEN2_PATTERN]), ..DEFAULT },
    PreTokenizer {
        names: &["tekken"],
        split: Split::Patterns(&[TEKKEN_PATTERN]),
        ignores_merges: true,
        adds_bos: true,
        ..DEFAULT
    },
    PreTokenizer {
        names: &["gpt-4o", "llama4", "kanana2"],
        split: Split::Patterns(&[GPT4O_PATTERN]),
        ..DEFAULT
    },
    PreTokenizer {
        names: &["falcon"],
        split: Split::Patterns(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2_PATTERN, "[0-9][0-9][0-9]"]),
        ..DEFAULT
    },
    DEFAULT,
];

impl PreTokenizer {
    /// The pre-tokenizer of this name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        TABLE.iter().find(|entry| entry.names.contains(&name))
    }

    /// The pre-tokenizer that splits like `json`, the value of `pre_tokenizer` in a tokenizer.json.
    pub(super) fn matching(json: Option<&Json>, ignores_merges: bool) -> Option<&'static Self> {
        let parts = parts(json?);
        TABLE
            .iter()
            .find(|entry| entry.ignores_merges == ignores_merges && is_split(&entry.split, &parts))
    }

    /// All names, for messages.
    pub(super) fn known() -> String {
        TABLE.iter().flat_map(|entry| entry.names).copied().collect::<Vec<_>>().join(", ")
    }

    /// The value of `pre_tokenizer` in tokenizer.json.
    pub(super) fn json(&self) -> Json {
        let bytes = |use_regex: bool| {
            json!({
                "type": "ByteLevel",
                "add_prefix_space": false,
                "trim_offsets": true,
                "use_regex": use_regex,
            })
        };
        let parts = match &self.split {
            Split::Gpt2 => return bytes(true),
            Split::DigitsThenGpt2 => {
                vec![json!({ "type": "Digits", "individual_digits": true }), bytes(true)]
            }
            Split::Patterns(patterns) => {
                let split = |pattern: &&str| {
                    json!({
                        "type": "Split",
                        "pattern": { "Regex": pattern },
                        "behavior": "Isolated",
                        "invert": false,
                    })
                };
                patterns.iter().map(split).chain([bytes(false)]).collect()
            }
        };
        json!({ "type": "Sequence", "pretokenizers": parts })
    }

    /// The value of `normalizer` in tokenizer.json.
    pub(super) fn normalizer(&self) -> Json {
        if self.composes { json!({ "type": "NFC" }) } else { Json::Null }
    }
}

/// The parts of a pre-tokenizer, sequences opened.
fn parts(json: &Json) -> Vec<&Json> {
    match json.get("pretokenizers").and_then(Json::as_array) {
        Some(list) => list.iter().flat_map(parts).collect(),
        None => vec![json],
    }
}

/// Whether the parts of a pre-tokenizer split like `split` and end in bytes.
fn is_split(split: &Split, parts: &[&Json]) -> bool {
    let Some((last, others)) = parts.split_last() else { return false };
    let flag = |json: &Json, key: &str, default: bool| {
        json.get(key).and_then(Json::as_bool).unwrap_or(default)
    };
    let is_bytes = type_of(last) == "ByteLevel" && !flag(last, "add_prefix_space", true);
    let uses_regex = flag(last, "use_regex", true);
    if !is_bytes {
        return false;
    }
    match (split, others) {
        (Split::Gpt2, []) => uses_regex,
        (Split::Gpt2, [only]) => !uses_regex && pattern(only) == Some(GPT2_PATTERN.to_owned()),
        (Split::DigitsThenGpt2, [digits]) => {
            let is_digits = type_of(digits) == "Digits" && flag(digits, "individual_digits", false);
            uses_regex && (is_digits || pattern(digits).as_deref() == Some(r"\p{N}"))
        }
        (Split::Patterns(patterns), others) => {
            !uses_regex
                && patterns.len() == others.len()
                && patterns.iter().zip(others).all(|(a, b)| pattern(b).as_deref() == Some(*a))
        }
        _ => false,
    }
}

fn type_of(json: &Json) -> &str {
    json.get("type").and_then(Json::as_str).unwrap_or_default()
}

/// The pattern of a part that makes each match a word, with contractions in one spelling.
fn pattern(json: &Json) -> Option<String> {
    let is_isolated = json.get("behavior").and_then(Json::as_str) == Some("Isolated")
        && json.get("invert").and_then(Json::as_bool) != Some(true);
    let regex = json.get("pattern")?.get("Regex")?.as_str()?;
    // GPT-2's pattern and a few others end in spaces, which stay a word of their own without that part, too.
    let regex = regex.strip_suffix(r"|\s+").filter(|rest| *rest == GPT2_PATTERN).unwrap_or(regex);
    let [ours, theirs] = CONTRACTIONS;
    (type_of(json) == "Split" && is_isolated).then(|| regex.replace(ours, theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_recognised() {
        for entry in TABLE {
            let found = PreTokenizer::matching(Some(&entry.json()), entry.ignores_merges).unwrap();
            assert_eq!(found.split_name(), entry.split_name(), "{:?}", entry.names);
            for name in entry.names {
                assert_eq!(PreTokenizer::named(name).unwrap().names, entry.names, "{name}");
            }
        }
    }

    #[test]
    fn other_forms_are_not() {
        let bytes = |space: bool| json!({ "type": "ByteLevel", "add_prefix_space": space });
        assert!(PreTokenizer::matching(Some(&bytes(false)), false).is_some());
        assert!(PreTokenizer::matching(Some(&bytes(true)), false).is_none());
        assert!(PreTokenizer::matching(Some(&bytes(false)), true).is_none());
        let whitespace = json!({ "type": "Whitespace" });
        assert!(PreTokenizer::matching(Some(&whitespace), false).is_none());
        assert!(PreTokenizer::matching(None, false).is_none());
    }

    impl PreTokenizer {
        fn split_name(&self) -> String {
            format!("{:?}", self.split)
        }
    }
}
