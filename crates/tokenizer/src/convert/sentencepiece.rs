//! tokenizer.model of sentencepiece: unigram and BPE models.
//!
//! Field numbers are those of sentencepiece_model.proto. The classes of Llama and Gemma ignore the
//! model's normalization of characters, as transformers does.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use gguf::FoundMerges;
use serde_json::{Map, Value, json};

use super::protobuf::{Field, fields};
use super::{added_token, check_count, class, refused, set_default};
use crate::Result;

const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNIGRAM: i32 = 1;
const BPE: i32 = 2;
/// Mark of a space.
const SPACE: &str = "▁";

/// A model as its file describes it; the default values are those of the format.
struct Model {
    pieces: Vec<Piece>,
    kind: i32,
    byte_fallback: bool,
    /// Ids of unk, bos, eos and pad; negative if there is none.
    specials: [i32; 4],
    charsmap: Vec<u8>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
}

struct Piece {
    text: String,
    score: f32,
    kind: i32,
}

/// Text of the tokenizer.json of a model.
pub(super) fn convert(
    path: &Path,
    bytes: &[u8],
    config: &mut Map<String, Value>,
) -> Result<String> {
    let Some(model) = read(bytes).filter(|model| !model.pieces.is_empty()) else {
        return Err(refused(path, "not a sentencepiece model".to_owned()));
    };
    if !matches!(model.kind, UNIGRAM | BPE) {
        let kind = model.kind;
        return Err(refused(path, format!("a sentencepiece model of kind `{kind}`, not 1 or 2")));
    }
    check_count(path, model.pieces.len())?;
    for piece in &model.pieces {
        FoundMerges::check_token(piece.text.len()).map_err(|reason| refused(path, reason))?;
    }
    let plain =
        matches!(class(config), Some("LlamaTokenizer" | "CodeLlamaTokenizer" | "GemmaTokenizer"));
    let keys = ["unk_token", "bos_token", "eos_token", "pad_token"];
    for (key, id) in keys.into_iter().zip(model.specials) {
        let piece = usize::try_from(id).ok().and_then(|id| model.pieces.get(id));
        if let Some(piece) = piece {
            set_default(config, key, piece.text.clone());
        }
    }
    // Without the flag, the classes of Llama and Gemma add no bos in transformers 5; in version 4
    // they do.
    if class(config) == Some("CodeLlamaTokenizer") {
        config.insert("add_bos_token".to_owned(), true.into());
    }
    let added: Vec<Value> = model
        .pieces
        .iter()
        .enumerate()
        .filter(|(_, piece)| matches!(piece.kind, UNKNOWN | CONTROL | USER_DEFINED))
        .map(|(id, piece)| added_token(id, &piece.text, piece.kind != USER_DEFINED))
        .collect();
    let scheme = match (model.add_dummy_prefix, plain) {
        (false, _) => "never",
        (true, true) => "first",
        (true, false) => "always",
    };
    let metaspace = json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme,
        "split": model.kind == UNIGRAM});
    // With `legacy` the mark of the first space is always written, otherwise only before a text that
    // does not start with a space.
    let legacy = config.get("legacy").and_then(Value::as_bool).unwrap_or(false);
    let (normalizer, pre_tokenizer) = match (plain, legacy) {
        (false, _) => (normalizer(&model), metaspace.clone()),
        (true, false) => (Value::Null, metaspace.clone()),
        (true, true) => (legacy_normalizer(&model), Value::Null),
    };
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": decoder(&model, &metaspace),
        "model": library_model(path, &model)?,
    });
    Ok(json.to_string())
}

fn library_model(path: &Path, model: &Model) -> Result<Value> {
    let unk = usize::try_from(model.specials[0]).ok().filter(|id| *id < model.pieces.len());
    if model.kind == UNIGRAM {
        let vocab: Vec<Value> =
            model.pieces.iter().map(|piece| json!([piece.text, piece.score])).collect();
        return Ok(json!({"type": "Unigram", "unk_id": unk, "vocab": vocab,
            "byte_fallback": model.byte_fallback}));
    }
    let vocab: Map<String, Value> = model
        .pieces
        .iter()
        .enumerate()
        .map(|(id, piece)| (piece.text.clone(), id.into()))
        .collect();
    Ok(json!({
        "type": "BPE", "dropout": null,
        "unk_token": unk.and_then(|id| model.pieces.get(id)).map(|piece| &piece.text),
        "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
        "byte_fallback": model.byte_fallback, "ignore_merges": false,
        "vocab": vocab, "merges": merges(path, &model.pieces)?,
    }))
}

/// Merges of a BPE model, which its file does not contain: each way to build a piece of two others,
/// by descending score of the piece, as in transformers' `generate_merges`.
fn merges<'a>(path: &Path, pieces: &'a [Piece]) -> Result<Vec<[&'a str; 2]>> {
    let mut found = FoundMerges::default();
    let ids: HashMap<&str, usize> =
        pieces.iter().enumerate().map(|(id, piece)| (piece.text.as_str(), id)).collect();
    let mut merges: Vec<(f32, [&str; 2])> = Vec::new();
    for piece in pieces {
        let mut of_piece: Vec<((usize, usize), [&str; 2])> = Vec::new();
        for (at, _) in piece.text.char_indices().skip(1) {
            let (left, right) = piece.text.split_at(at);
            if let (Some(left_id), Some(right_id)) = (ids.get(left), ids.get(right)) {
                found.add(piece.text.len()).map_err(|reason| refused(path, reason))?;
                of_piece.push(((*left_id, *right_id), [left, right]));
            }
        }
        of_piece.sort_by_key(|(ids, _)| *ids);
        merges.extend(of_piece.into_iter().map(|(_, merge)| (piece.score, merge)));
    }
    let lengths = |[left, right]: [&str; 2]| (left.chars().count(), right.chars().count());
    merges.sort_by(|(a_score, a), (b_score, b)| {
        b_score.total_cmp(a_score).then_with(|| lengths(*b).cmp(&lengths(*a)))
    });
    Ok(merges.into_iter().map(|(_, merge)| merge).collect())
}

/// Marks of spaces, written by a normalizer.
fn legacy_normalizer(model: &Model) -> Value {
    let mut parts = Vec::new();
    if model.add_dummy_prefix {
        parts.push(json!({"type": "Prepend", "prepend": SPACE}));
    }
    parts.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE}));
    json!({"type": "Sequence", "normalizers": parts})
}

/// Normalization of characters and of spaces.
fn normalizer(model: &Model) -> Value {
    let mut parts = Vec::new();
    if !model.charsmap.is_empty() {
        let charsmap = BASE64_STANDARD.encode(&model.charsmap);
        parts.push(json!({"type": "Precompiled", "precompiled_charsmap": charsmap}));
    }
    if model.remove_extra_whitespaces {
        parts.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
        parts.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}));
    }
    if parts.is_empty() { Value::Null } else { json!({"type": "Sequence", "normalizers": parts}) }
}

fn decoder(model: &Model, metaspace: &Value) -> Value {
    if !model.byte_fallback {
        return metaspace.clone();
    }
    let mut parts = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if model.add_dummy_prefix {
        parts.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": parts})
}

fn read(bytes: &[u8]) -> Option<Model> {
    let mut model = Model {
        pieces: Vec::new(),
        kind: UNIGRAM,
        byte_fallback: false,
        specials: [0, 1, 2, -1],
        charsmap: Vec::new(),
        add_dummy_prefix: true,
        remove_extra_whitespaces: true,
    };
    fields(bytes, |number, field| {
        let Field::Bytes(inner) = field else { return Some(()) };
        match number {
            1 => model.pieces.push(piece(inner)?),
            2 => fields(inner, |number, field| trainer_field(&mut model, number, field))?,
            3 => fields(inner, |number, field| normalizer_field(&mut model, number, field))?,
            _ => {}
        }
        Some(())
    })?;
    Some(model)
}

fn piece(bytes: &[u8]) -> Option<Piece> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: 1 };
    fields(bytes, |number, field| {
        match (number, field) {
            (1, Field::Bytes(text)) => piece.text = String::from_utf8(text.to_vec()).ok()?,
            (2, field) => piece.score = field.float().filter(|score| score.is_finite())?,
            (3, field) => piece.kind = field.int()?,
            _ => {}
        }
        Some(())
    })?;
    Some(piece)
}

fn trainer_field(model: &mut Model, number: u64, field: &Field<'_>) -> Option<()> {
    match number {
        3 => model.kind = field.int()?,
        35 => model.byte_fallback = field.flag()?,
        40 => model.specials[0] = field.int()?,
        41 => model.specials[1] = field.int()?,
        42 => model.specials[2] = field.int()?,
        43 => model.specials[3] = field.int()?,
        _ => {}
    }
    Some(())
}

fn normalizer_field(model: &mut Model, number: u64, field: &Field<'_>) -> Option<()> {
    match (number, field) {
        (2, Field::Bytes(charsmap)) => model.charsmap = charsmap.to_vec(),
        (3, field) => model.add_dummy_prefix = field.flag()?,
        (4, field) => model.remove_extra_whitespaces = field.flag()?,
        _ => {}
    }
    Some(())
}
