//! tokenizer.json, tokenizer_config.json and the ids of special tokens from metadata.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use super::pre_tokenizer::PreTokenizer;
use super::sentencepiece::{Piece, merges};
use super::vocabulary::{Kind, Model, Vocabulary};
use crate::{Error, FoundMerges, Metadata, Result};

/// Texts of tokens that end a turn or a document; llama.cpp stops at them too.
const END_TEXTS: [&str; 15] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
];
/// The character that stands for a space in sentencepiece.
const SPACE: &str = "\u{2581}";

/// `bos_token_id`, `eos_token_id` (every id at which generation stops) and `pad_token_id`.
pub(in super::super) fn token_ids(metadata: &Metadata) -> Result<Map<String, Json>> {
    let mut map = Map::new();
    let Some(vocabulary) = Vocabulary::read(metadata)? else { return Ok(map) };
    if let Some(bos) = vocabulary.bos()? {
        map.insert("bos_token_id".to_owned(), json!(bos));
    }
    let mut ends = Vec::new();
    for name in ["eot", "eom"] {
        ends.extend(vocabulary.special(name, None)?);
    }
    ends.splice(0..0, vocabulary.eos()?);
    for (id, text, kind) in vocabulary.entries() {
        let is_special = matches!(kind, Kind::Control | Kind::UserDefined);
        if is_special && END_TEXTS.contains(&text) {
            ends.push(id);
        }
    }
    let mut seen = BTreeSet::new();
    ends.retain(|id| seen.insert(*id));
    match ends.as_slice() {
        [] => {}
        [one] => _ = map.insert("eos_token_id".to_owned(), json!(one)),
        several => _ = map.insert("eos_token_id".to_owned(), json!(several)),
    }
    if let Some(pad) = vocabulary.special("padding", None)? {
        map.insert("pad_token_id".to_owned(), json!(pad));
    }
    Ok(map)
}

/// tokenizer_config.json: the texts of special tokens.
pub(in super::super) fn tokenizer_config(metadata: &Metadata) -> Result<Map<String, Json>> {
    let mut map = Map::new();
    map.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    map.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
    let Some(vocabulary) = Vocabulary::read(metadata)? else { return Ok(map) };
    let specials = [
        ("bos_token", vocabulary.bos()?),
        ("eos_token", vocabulary.eos()?),
        ("unk_token", vocabulary.special("unknown", Some(0))?),
        ("pad_token", vocabulary.special("padding", None)?),
    ];
    for (key, id) in specials {
        if let Some(text) = id.and_then(|id| vocabulary.tokens.get(id)) {
            map.insert(key.to_owned(), json!(text));
        }
    }
    Ok(map)
}

/// tokenizer.json; none if the file has no vocabulary.
pub(in super::super) fn tokenizer_json(metadata: &Metadata) -> Result<Option<Json>> {
    let Some(vocabulary) = Vocabulary::read(metadata)? else { return Ok(None) };
    let parts = match vocabulary.model {
        Model::ByteBpe => byte_bpe(&vocabulary)?,
        Model::SentencePiece => sentencepiece(&vocabulary)?,
    };
    let flag = |name: &str, default: bool| {
        let given = metadata.flag(&format!("tokenizer.ggml.{name}"))?;
        Ok::<bool, Error>(given.unwrap_or(default))
    };
    let bos = if flag("add_bos_token", parts.adds_bos)? { vocabulary.bos()? } else { None };
    let eos = if flag("add_eos_token", false)? { vocabulary.eos()? } else { None };
    Ok(Some(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&vocabulary),
        "normalizer": parts.normalizer,
        "pre_tokenizer": parts.pre_tokenizer,
        "post_processor": post_processor(&vocabulary, bos, eos),
        "decoder": parts.decoder,
        "model": parts.model,
    })))
}

/// Differences between the two models of tokenizers.
struct Parts {
    normalizer: Json,
    pre_tokenizer: Json,
    decoder: Json,
    model: Json,
    adds_bos: bool,
}

fn byte_bpe(vocabulary: &Vocabulary) -> Result<Parts> {
    let metadata = vocabulary.metadata;
    let name = metadata.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let Some(pre) = PreTokenizer::named(name) else {
        return Err(Error::Unsupported {
            path: metadata.path().to_owned(),
            reason: format!("pre-tokenizer `{name}` is not supported"),
            hint: format!("supported: {}", PreTokenizer::known()),
        });
    };
    let key = "tokenizer.ggml.merges";
    let pairs = metadata.require(key, metadata.strings(key)?)?;
    let (mut merges, mut budget) = (Vec::new(), FoundMerges::default());
    let bad = |reason| Error::Malformed { path: metadata.path().to_owned(), reason };
    for pair in pairs {
        budget.add(pair.len()).map_err(bad)?;
        let parts = pair
            .split_once(' ')
            .filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '));
        let Some((left, right)) = parts else {
            let reason = format!("`{key}` contains `{pair}`, which is not two tokens");
            return Err(bad(reason));
        };
        merges.push(json!([left, right]));
    }
    Ok(Parts {
        normalizer: pre.normalizer(),
        pre_tokenizer: pre.json(),
        decoder: json!({
            "type": "ByteLevel",
            "add_prefix_space": true,
            "trim_offsets": true,
            "use_regex": true,
        }),
        model: json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": pre.ignores_merges,
            "vocab": vocab(vocabulary),
            "merges": merges,
        }),
        adds_bos: pre.adds_bos,
    })
}

fn sentencepiece(vocabulary: &Vocabulary) -> Result<Parts> {
    let metadata = vocabulary.metadata;
    let key = "tokenizer.ggml.scores";
    let scores = metadata.array(key, "an array of numbers", crate::Value::as_float)?;
    let scores = metadata.require(key, scores)?;
    if scores.len() != vocabulary.tokens.len() {
        return Err(metadata.wrong(key, "as long as tokenizer.ggml.tokens"));
    }
    let pieces: Vec<Piece> = vocabulary
        .entries()
        .zip(scores)
        .filter(|((_, _, kind), _)| *kind == Kind::Normal)
        .map(|((id, text, _), score)| Piece { id, text, score })
        .collect();
    let merges = merges(&pieces)
        .map_err(|reason| Error::Malformed { path: metadata.path().to_owned(), reason })?;
    let merges: Vec<Json> = merges.into_iter().map(|(left, right)| json!([left, right])).collect();
    let adds_space = metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE });
    let mut normalizers = vec![replace];
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if adds_space {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": SPACE }));
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let unknown = vocabulary.special("unknown", Some(0))?;
    Ok(Parts {
        normalizer: json!({ "type": "Sequence", "normalizers": normalizers }),
        pre_tokenizer: Json::Null,
        decoder: json!({ "type": "Sequence", "decoders": decoders }),
        model: json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown.and_then(|id| vocabulary.tokens.get(id)),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": vocab(vocabulary),
            "merges": merges,
        }),
        adds_bos: true,
    })
}

/// Token texts and ids, without unused tokens; of tokens with the same text the first counts.
fn vocab(vocabulary: &Vocabulary) -> Map<String, Json> {
    let mut vocab = Map::new();
    for (id, text, kind) in vocabulary.entries() {
        if kind != Kind::Unused && !text.is_empty() {
            vocab.entry(text.to_owned()).or_insert_with(|| json!(id));
        }
    }
    vocab
}

fn added_tokens(vocabulary: &Vocabulary) -> Vec<Json> {
    let mut seen = BTreeSet::new();
    vocabulary
        .entries()
        .filter(|(_, text, kind)| {
            matches!(kind, Kind::Control | Kind::UserDefined | Kind::Unknown)
                && !text.is_empty()
                && seen.insert(*text)
        })
        .map(|(id, text, kind)| {
            json!({
                "id": id,
                "content": text,
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": kind != Kind::UserDefined,
            })
        })
        .collect()
}

/// Puts `bos` before every text and `eos` after it.
fn post_processor(vocabulary: &Vocabulary, bos: Option<usize>, eos: Option<usize>) -> Json {
    let text = |id: usize| vocabulary.tokens.get(id).map_or("", String::as_str);
    let special = |id: Option<usize>, type_id: u32| {
        id.map(|id| json!({ "SpecialToken": { "id": text(id), "type_id": type_id } }))
    };
    let single = |sequence: &str, type_id: u32| {
        let sequence = json!({ "Sequence": { "id": sequence, "type_id": type_id } });
        let parts = [special(bos, type_id), Some(sequence), special(eos, type_id)];
        parts.into_iter().flatten().collect::<Vec<Json>>()
    };
    let mut specials = Map::new();
    for id in [bos, eos].into_iter().flatten() {
        let token = json!({ "id": text(id), "ids": [id], "tokens": [text(id)] });
        specials.insert(text(id).to_owned(), token);
    }
    let pair = [single("A", 0), single("B", 1)].concat();
    json!({
        "type": "TemplateProcessing",
        "single": single("A", 0),
        "pair": pair,
        "special_tokens": specials,
    })
}
