//! tiktoken files: tokens in base64 with their ranks. The pattern that splits words is not in the
//! file; the name of the encoding or the configuration tells which one it is.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use gguf::FoundMerges;
use serde_json::{Map, Value, json};

use super::{Converted, added_token, check_count, class, refused, set_default};
use crate::byte_alphabet::byte_alphabet;
use crate::config_values::{object, token_text};
use crate::{Error, Result};

/// Letters, up to three digits, other characters, white space: cl100k_base before tiktoken 0.6,
/// Llama 3 and GLM-4.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with single digits: Qwen.
const QWEN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// cl100k_base. White space at the end of a text is one word.
const CL100K: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+\z|\s*[\r\n]|\s+(?!\S)|\s";
/// o200k_base: words by the case of their letters.
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// r50k_base and p50k_base, as GPT-2.
const R50K: &str = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Kimi K2: as o200k_base, with Chinese characters apart.
const KIMI: &str = r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Rules of a tokenizer besides its ranks.
struct Encoding {
    pattern: String,
    /// Special tokens with their ids.
    specials: Vec<(String, u32)>,
    bos: Option<&'static str>,
    eos: Option<&'static str>,
}

/// Whether the first line is a token in base64 and its rank.
pub(super) fn is_tiktoken(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    rank_line(line).is_ok()
}

/// Text of the tokenizer.json of a tiktoken file.
pub(super) fn convert(
    path: &Path,
    bytes: &[u8],
    config: &mut Map<String, Value>,
) -> Result<Converted> {
    let ranks = read(path, bytes)?;
    let n_ranks = ranks.values().max().map_or(0, |rank| rank + 1);
    let encoding = encoding(path, config, n_ranks)?;
    let alphabet = byte_alphabet();
    let text = |bytes: &[u8]| -> String {
        bytes.iter().filter_map(|byte| alphabet.get(usize::from(*byte))).collect()
    };
    let mut vocab: Map<String, Value> =
        ranks.iter().map(|(token, rank)| (text(token), (*rank).into())).collect();
    // The library numbers added tokens itself unless the vocabulary has them.
    vocab.extend(encoding.specials.iter().map(|(text, id)| (text.clone(), (*id).into())));
    let merges: Vec<[String; 2]> =
        merges(path, &ranks)?.into_iter().map(|[left, right]| [text(left), text(right)]).collect();
    for (key, token) in [("bos_token", encoding.bos), ("eos_token", encoding.eos)] {
        if let Some(token) = token {
            set_default(config, key, token);
        }
    }
    if encoding.bos.is_some() {
        set_default(config, "add_bos_token", true);
    }
    let added: Vec<Value> =
        encoding.specials.iter().map(|(text, id)| added_token(*id as usize, text, true)).collect();
    let split = json!({"type": "Split", "pattern": {"Regex": encoding.pattern},
        "behavior": "Isolated", "invert": false});
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": false});
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
            "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
            // A word that is a token stays one, whatever its merges are.
            "ignore_merges": true, "vocab": vocab, "merges": merges,
        },
    });
    Ok(Converted { path: path.to_owned(), json: json.to_string() })
}

/// Tokens with their ranks.
fn read(path: &Path, bytes: &[u8]) -> Result<HashMap<Vec<u8>, u32>> {
    let damaged = |line: usize, reason: &str| Error::Refused {
        path: path.to_owned(),
        reason: format!("line {line}: {reason}"),
        hint: Some("the tiktoken file is damaged; get it from its publisher again".to_owned()),
    };
    check_count(path, bytes.iter().filter(|byte| **byte == b'\n').count())?;
    let mut ranks = HashMap::new();
    let mut seen = std::collections::HashSet::new();
    for (idx, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let (token, rank) = rank_line(line).map_err(|reason| damaged(idx + 1, reason))?;
        if !seen.insert(rank) {
            return Err(damaged(idx + 1, &format!("a second token with the rank `{rank}`")));
        }
        if ranks.insert(token, rank).is_some() {
            return Err(damaged(idx + 1, "a token that an earlier line has as well"));
        }
    }
    match (0..=u8::MAX).find(|byte| !ranks.contains_key([*byte].as_slice())) {
        Some(byte) => Err(refused(path, format!("no token for the byte `{byte:#04x}`"))),
        None => Ok(ranks),
    }
}

fn rank_line(line: &[u8]) -> std::result::Result<(Vec<u8>, u32), &'static str> {
    let line = line.trim_ascii();
    let space = line.iter().position(|byte| *byte == b' ');
    let Some((token, rank)) = space.and_then(|at| line.split_at_checked(at)) else {
        return Err("not a token in base64, a space and a rank");
    };
    let token = BASE64_STANDARD
        .decode(token)
        .ok()
        .filter(|token| !token.is_empty() && FoundMerges::check_token(token.len()).is_ok());
    let rank = std::str::from_utf8(rank.trim_ascii()).ok().and_then(|rank| rank.parse().ok());
    match (token, rank) {
        (None, _) => Err("the token is not base64, or is empty or too long"),
        (_, None) => Err("the rank is not a number"),
        (Some(token), Some(rank)) => Ok((token, rank)),
    }
}

/// Every way to build a token of two others, by the rank of the token: tiktoken merges the pair of
/// the lowest rank first.
fn merges<'a>(path: &Path, ranks: &'a HashMap<Vec<u8>, u32>) -> Result<Vec<[&'a [u8]; 2]>> {
    let mut found = FoundMerges::default();
    let mut merges: Vec<((u32, u32, u32), [&[u8]; 2])> = Vec::new();
    let mut tokens: Vec<(&Vec<u8>, &u32)> = ranks.iter().collect();
    tokens.sort_unstable_by_key(|(_, rank)| **rank);
    for (token, rank) in tokens {
        for at in 1..token.len() {
            let (left, right) = token.split_at(at);
            if let (Some(left_rank), Some(right_rank)) = (ranks.get(left), ranks.get(right)) {
                found.add(token.len()).map_err(|reason| refused(path, reason))?;
                merges.push(((*rank, *left_rank, *right_rank), [left, right]));
            }
        }
    }
    merges.sort_unstable_by_key(|(order, _)| *order);
    Ok(merges.into_iter().map(|(_, merge)| merge).collect())
}

/// The rules of a file: by `pat_str` of tokenizer_config.json, by the name of the file, by the
/// tokenizer's class, or by the model's type.
fn encoding(path: &Path, config: &Map<String, Value>, n_ranks: u32) -> Result<Encoding> {
    let dir = path.parent().unwrap_or(Path::new(""));
    let model = object(&dir.join("config.json"), fsio::limits::CONFIG_BYTES)?;
    let params = object(&dir.join("params.json"), fsio::limits::CONFIG_BYTES)?;
    let stem = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let model_type = model.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let mut encoding = if let Some(pattern) = config.get("pat_str").and_then(Value::as_str) {
        plain(&translated(pattern))
    } else if let Some(encoding) = by_name(stem) {
        encoding
    } else {
        match (class(config), model_type) {
            (Some("QWenTokenizer"), _) | (_, "qwen") => qwen(n_ranks),
            (Some("ChatGLM4Tokenizer"), _) | (_, "chatglm") => plain(LLAMA3),
            (Some("TikTokenTokenizer"), _) | (_, "kimi_k2") => plain(KIMI),
            (_, "llama" | "mllama") => llama3(n_ranks, &model),
            _ if params.contains_key("rope_theta") => llama3(n_ranks, &params),
            (class, _) => return Err(unknown(path, class)),
        }
    };
    // Tokens that the config describes by their ids.
    let decoder = config.get("added_tokens_decoder").and_then(Value::as_object);
    let described: Vec<(String, u32)> = decoder
        .into_iter()
        .flatten()
        .filter_map(|(id, token)| Some((token_text(token)?.to_owned(), id.parse().ok()?)))
        .filter(|(_, id)| *id >= n_ranks)
        .collect();
    if !described.is_empty() {
        encoding.specials = described;
    }
    let known = |name: &&str| encoding.specials.iter().any(|(text, _)| text == name);
    encoding.bos = encoding.bos.filter(known);
    encoding.eos = encoding.eos.filter(known);
    Ok(encoding)
}

/// A pattern of tiktoken in the syntax of the tokenizers library, where `$` is the end of a line and
/// `+` after a count repeats it instead of making it possessive.
fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars().peekable();
    let (mut in_class, mut count) = (false, None);
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                out.push(c);
                let escaped = chars.next();
                out.extend(escaped);
                if matches!(escaped, Some('p' | 'P')) && chars.peek() == Some(&'{') {
                    // A property such as `\p{L}`.
                    out.extend(chars.by_ref().take_while(|c| *c != '}'));
                    out.push('}');
                }
                continue;
            }
            '[' => in_class = true,
            ']' => in_class = false,
            '$' if !in_class => {
                out.push_str(r"\z");
                continue;
            }
            '{' if !in_class => count = Some(out.len()),
            '+' if out.ends_with('}') && count.is_some() => {
                count = None;
                continue;
            }
            _ => {}
        }
        if !matches!(c, '{' | '}' | ',' | '0'..='9') {
            count = None;
        }
        out.push(c);
    }
    out
}

fn unknown(path: &Path, class: Option<&str>) -> Error {
    let whose = class.map_or_else(String::new, |class| format!(" of the class `{class}`"));
    Error::Refused {
        path: path.to_owned(),
        reason: format!(
            "a tiktoken file{whose}, and no configuration tells the pattern that splits words"
        ),
        hint: Some(
            "set `pat_str` in tokenizer_config.json beside the file to the pattern, or write a \
             tokenizer.json with transformers"
                .to_owned(),
        ),
    }
}

fn plain(pattern: &str) -> Encoding {
    Encoding { pattern: pattern.to_owned(), specials: Vec::new(), bos: None, eos: None }
}

/// An encoding of OpenAI, by the name of its file.
fn by_name(stem: &str) -> Option<Encoding> {
    let end_of_text = "<|endoftext|>";
    let (pattern, specials): (&str, &[(&str, u32)]) = match stem {
        "gpt2" | "r50k_base" | "p50k_base" => (R50K, &[("<|endoftext|>", 50_256)]),
        "cl100k_base" => (
            CL100K,
            &[
                ("<|endoftext|>", 100_257),
                ("<|fim_prefix|>", 100_258),
                ("<|fim_middle|>", 100_259),
                ("<|fim_suffix|>", 100_260),
                ("<|endofprompt|>", 100_276),
            ],
        ),
        "o200k_base" => (O200K, &[("<|endoftext|>", 199_999), ("<|endofprompt|>", 200_018)]),
        _ => return None,
    };
    let specials = specials.iter().map(|(text, id)| ((*text).to_owned(), *id)).collect();
    Some(Encoding { pattern: pattern.to_owned(), specials, bos: None, eos: Some(end_of_text) })
}

/// Qwen's special tokens follow the ranks.
fn qwen(n_ranks: u32) -> Encoding {
    let names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned);
    let extra = (0..205).map(|n| format!("<|extra_{n}|>"));
    Encoding {
        pattern: QWEN.to_owned(),
        specials: names.into_iter().chain(extra).zip(n_ranks..).collect(),
        bos: None,
        eos: Some("<|endoftext|>"),
    }
}

/// The 256 special tokens of Llama 3 follow the ranks. From 3.1 on, some of the reserved ones have
/// names; those models scale their rotary frequencies.
fn llama3(n_ranks: u32, config: &Map<String, Value>) -> Encoding {
    const N: usize = 256;
    let scales = |key: &str| config.get(key).is_some_and(|value| !value.is_null());
    let has_names = config.get("use_scaled_rope").and_then(Value::as_bool).unwrap_or(false)
        || scales("rope_scaling")
        || scales("rope_parameters");
    let named: &[&str] = if has_names {
        &[
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|reserved_special_token_0|>",
            "<|reserved_special_token_1|>",
            "<|finetune_right_pad_id|>",
            "<|reserved_special_token_2|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eom_id|>",
            "<|eot_id|>",
            "<|python_tag|>",
        ]
    } else {
        &[
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|reserved_special_token_0|>",
            "<|reserved_special_token_1|>",
            "<|reserved_special_token_2|>",
            "<|reserved_special_token_3|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|reserved_special_token_4|>",
            "<|eot_id|>",
        ]
    };
    let first = if has_names { 3 } else { 5 };
    let reserved = (first..).map(|n: u32| format!("<|reserved_special_token_{n}|>"));
    let names = named.iter().map(|name| (*name).to_owned()).chain(reserved);
    Encoding {
        pattern: LLAMA3.to_owned(),
        specials: names.take(N).zip(n_ranks..).collect(),
        bos: Some("<|begin_of_text|>"),
        eos: Some("<|end_of_text|>"),
    }
}

#[cfg(test)]
mod tests {
    use super::translated;

    #[test]
    fn patterns_are_translated() {
        assert_eq!(
            translated(r"\p{L}++|\p{N}{1,3}+| ?[^\s{$]++|\s++$|a{2}b+\$"),
            r"\p{L}++|\p{N}{1,3}| ?[^\s{$]++|\s++\z|a{2}b+\$"
        );
    }
}
