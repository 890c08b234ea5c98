//! `tokenizer.ggml.*` from a tokenizer.json.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::pre_tokenizer::PreTokenizer;
use super::vocabulary::Kind;
use crate::{Array, Error, Result, Value};

/// A tokenizer that is going to be written.
#[derive(Debug, Clone, Copy)]
pub struct TokenizerSource<'a> {
    /// tokenizer.json.
    pub json: &'a Json,
    /// The beginning-of-text token.
    pub bos: Option<u32>,
    /// The end-of-text token.
    pub eos: Option<u32>,
    /// The token that ends a turn of a chat.
    pub end_of_turn: Option<u32>,
    /// The padding token.
    pub pad: Option<u32>,
    /// Whether bos stands before every text.
    pub adds_bos: bool,
    /// Whether eos stands after every text.
    pub adds_eos: bool,
    /// The chat template.
    pub template: Option<&'a str>,
}

/// The score of a token that no merge makes.
const UNREACHABLE: f32 = -1e6;

/// The keys of a tokenizer; the vocabulary is filled up to `vocab_size`.
pub(in super::super) fn metadata(
    source: &TokenizerSource,
    vocab_size: usize,
) -> Result<Vec<(String, Value)>> {
    let model = object(source.json.get("model"))?;
    if model.get("type").and_then(Json::as_str).unwrap_or("BPE") != "BPE" {
        return Err(not_exportable(
            "llama.cpp reads byte-level and sentencepiece BPE; this tokenizer is another",
        ));
    }
    let tokens = Tokens::read(source.json, &model, vocab_size)?;
    let merges = merges(&model)?;
    let is_byte_level = model.get("byte_fallback").and_then(Json::as_bool) != Some(true);
    let mut keys = Vec::new();
    let mut put = |name: &str, value: Value| keys.push((format!("tokenizer.{name}"), value));
    if is_byte_level {
        let ignores = model.get("ignore_merges").and_then(Json::as_bool).unwrap_or(false);
        check_normalizer(source.json)?;
        let pre = PreTokenizer::matching(source.json.get("pre_tokenizer"), ignores);
        let Some(pre) = pre.and_then(|pre| pre.names.first()) else {
            return Err(not_exportable(
                "llama.cpp has no pre-tokenizer like the one of tokenizer.json",
            ));
        };
        put("ggml.model", Value::string("gpt2"));
        put("ggml.pre", Value::string(*pre));
    } else {
        put("ggml.model", Value::string("llama"));
        put("ggml.pre", Value::string("default"));
        put("ggml.scores", Value::Array(Array::F32(scores(&tokens, &merges))));
        put("ggml.add_space_prefix", Value::Bool(adds_space(source.json)));
    }
    put("ggml.tokens", Value::strings(tokens.texts));
    let kinds = tokens.kinds.iter().map(|kind| kind.id()).collect();
    put("ggml.token_type", Value::Array(Array::I32(kinds)));
    if is_byte_level {
        let pairs = merges.iter().map(|(left, right)| format!("{left} {right}"));
        put("ggml.merges", Value::strings(pairs));
    }
    let end_of_turn = source.end_of_turn.filter(|id| Some(*id) != source.eos);
    let unknown = model.get("unk_token").and_then(Json::as_str);
    let unknown = unknown.and_then(|text| tokens.ids.get(text)).map(|id| *id as u32);
    for (name, id) in [
        ("bos", source.bos),
        ("eos", source.eos),
        ("eot", end_of_turn),
        ("unknown", unknown),
        ("padding", source.pad),
    ] {
        if let Some(id) = id {
            put(&format!("ggml.{name}_token_id"), Value::U32(id));
        }
    }
    put("ggml.add_bos_token", Value::Bool(source.adds_bos && source.bos.is_some()));
    put("ggml.add_eos_token", Value::Bool(source.adds_eos && source.eos.is_some()));
    if let Some(template) = source.template {
        put("chat_template", Value::string(template));
    }
    Ok(keys)
}

fn not_exportable(reason: &str) -> Error {
    Error::NotExportable {
        reason: reason.to_owned(),
        hint: "leave --gguf out to write a Hugging Face directory".to_owned(),
    }
}

fn object(value: Option<&Json>) -> Result<Map<String, Json>> {
    let map = value.and_then(Json::as_object).cloned();
    map.ok_or_else(|| not_exportable("tokenizer.json has no `model`"))
}

/// Texts and kinds by id.
struct Tokens {
    texts: Vec<String>,
    kinds: Vec<Kind>,
    ids: BTreeMap<String, usize>,
}

impl Tokens {
    fn read(json: &Json, model: &Map<String, Json>, vocab_size: usize) -> Result<Self> {
        let mut tokens = Self {
            texts: (0..vocab_size).map(|id| format!("[PAD{id}]")).collect(),
            kinds: vec![Kind::Unused; vocab_size],
            ids: BTreeMap::new(),
        };
        let vocab = object(model.get("vocab")).unwrap_or_default();
        let unknown = model.get("unk_token").and_then(Json::as_str);
        for (text, id) in &vocab {
            let kind = match text.as_str() {
                text if Some(text) == unknown => Kind::Unknown,
                text if is_byte(text) && unknown.is_some() => Kind::Byte,
                _ => Kind::Normal,
            };
            tokens.put(text, id, kind)?;
        }
        for added in json.get("added_tokens").and_then(Json::as_array).into_iter().flatten() {
            let text = added.get("content").and_then(Json::as_str).unwrap_or_default();
            let is_special = added.get("special").and_then(Json::as_bool).unwrap_or(false);
            let kind = match () {
                () if Some(text) == unknown => Kind::Unknown,
                () if is_special || looks_special(text) => Kind::Control,
                () => Kind::UserDefined,
            };
            tokens.put(text, added.get("id").unwrap_or(&Json::Null), kind)?;
        }
        Ok(tokens)
    }

    fn put(&mut self, text: &str, id: &Json, kind: Kind) -> Result<()> {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
        let place = id.and_then(|id| Some((id, self.texts.get_mut(id)?, self.kinds.get_mut(id)?)));
        let Some((id, text_at, kind_at)) = place else {
            let n = self.texts.len();
            return Err(not_exportable(&format!("token `{text}` has no row among {n} embeddings")));
        };
        text.clone_into(text_at);
        *kind_at = kind;
        self.ids.insert(text.to_owned(), id);
        Ok(())
    }
}

/// Added tokens that are special by their form; llama.cpp's converter makes the same exception.
fn looks_special(text: &str) -> bool {
    matches!(text, "<pad>" | "<mask>") || (text.starts_with("<|") && text.ends_with("|>"))
}

/// Whether a token stands for one byte, as in `<0x0A>`.
fn is_byte(text: &str) -> bool {
    let hex = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    hex.is_some_and(|hex| hex.len() == 2 && u8::from_str_radix(hex, 16).is_ok())
}

/// Pairs of tokens in the order of their priority; files spell them as `a b` or as lists.
fn merges(model: &Map<String, Json>) -> Result<Vec<(String, String)>> {
    let pair = |value: &Json| -> Option<(String, String)> {
        if let Some(text) = value.as_str() {
            let (left, right) = text.split_once(' ')?;
            return Some((left.to_owned(), right.to_owned()));
        }
        match value.as_array()?.as_slice() {
            [left, right] => Some((left.as_str()?.to_owned(), right.as_str()?.to_owned())),
            _ => None,
        }
    };
    let list = model.get("merges").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let pairs: Option<Vec<(String, String)>> = list.iter().map(pair).collect();
    pairs.ok_or_else(|| not_exportable("`merges` of tokenizer.json are not pairs of tokens"))
}

/// Scores that make llama.cpp merge in the order of `merges`: a piece has minus the rank of its first merge.
fn scores(tokens: &Tokens, merges: &[(String, String)]) -> Vec<f32> {
    let mut scores: Vec<f32> = tokens
        .kinds
        .iter()
        .map(|kind| if *kind == Kind::Normal { UNREACHABLE } else { 0.0 })
        .collect();
    for (rank, (left, right)) in merges.iter().enumerate().rev() {
        let piece = format!("{left}{right}");
        if let Some(score) = tokens.ids.get(&piece).and_then(|id| scores.get_mut(*id)) {
            *score = -(rank as f32);
        }
    }
    scores
}

/// Whether a space is put before a text.
fn adds_space(json: &Json) -> bool {
    let normalizer = json.get("normalizer").map(Json::to_string).unwrap_or_default();
    let scheme = |value: &str| {
        let pre = json.get("pre_tokenizer").map(Json::to_string).unwrap_or_default();
        pre.contains(&format!("\"prepend_scheme\":\"{value}\""))
    };
    normalizer.contains("\"Prepend\"") || scheme("first") || scheme("always")
}

/// Texts must reach byte-level BPE as they are; composing characters is left out in llama.cpp.
fn check_normalizer(json: &Json) -> Result<()> {
    let normalizer = json.get("normalizer").unwrap_or(&Json::Null);
    let kind = normalizer.get("type").and_then(Json::as_str);
    if normalizer.is_null() || kind == Some("NFC") {
        return Ok(());
    }
    Err(not_exportable("llama.cpp has no normalizer like the one of tokenizer.json"))
}
