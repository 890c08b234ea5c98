//! The ids of the tokens that begin, end and pad a text, as config.json and generation_config.json give them; does
//! not know the tokenizer, whose ids go before these.

use serde_json::{Map, Value, json};

use crate::config_reader::Keys;
use crate::error::Result;

/// The special ids of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenIds {
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// Every token that ends a text, the main one first, none twice.
    pub eos: Vec<u32>,
    /// The token that fills rows up.
    pub pad: Option<u32>,
}

impl TokenIds {
    /// Reads `bos_token_id`, `eos_token_id` (a number or a list) and `pad_token_id`. Ids outside the vocabulary,
    /// such as the -1 that some old files hold, are none.
    pub(crate) fn read(keys: &mut Keys, vocab_size: usize) -> Result<Self> {
        let bos = one(keys, "bos_token_id", vocab_size);
        let pad = one(keys, "pad_token_id", vocab_size);
        let eos = many(keys, "eos_token_id", vocab_size);
        Ok(Self { bos: bos?, eos: eos?, pad: pad? })
    }

    /// Adds what generation_config.json says: its end ids join the list, its others fill what is absent.
    pub fn merge_generation_config(&mut self, value: &Value, vocab_size: usize) {
        let get = |key: &str| value.get(key).map(ids).unwrap_or_default();
        let known = |id: &i64| u32::try_from(*id).ok().filter(|&id| (id as usize) < vocab_size);
        for id in get("eos_token_id").iter().filter_map(known) {
            if !self.eos.contains(&id) {
                self.eos.push(id);
            }
        }
        self.bos = self.bos.or_else(|| get("bos_token_id").iter().find_map(known));
        self.pad = self.pad.or_else(|| get("pad_token_id").iter().find_map(known));
    }

    /// The keys as config.json and generation_config.json hold them; what is absent is null.
    pub fn to_json(&self) -> Map<String, Value> {
        let eos = match self.eos.as_slice() {
            [] => Value::Null,
            [id] => json!(id),
            ids => json!(ids),
        };
        let mut map = Map::new();
        map.insert("bos_token_id".to_owned(), json!(self.bos));
        map.insert("eos_token_id".to_owned(), eos);
        map.insert("pad_token_id".to_owned(), json!(self.pad));
        map
    }
}

fn one(keys: &mut Keys, key: &str, vocab_size: usize) -> Result<Option<u32>> {
    Ok(many(keys, key, vocab_size)?.first().copied())
}

fn many(keys: &mut Keys, key: &str, vocab_size: usize) -> Result<Vec<u32>> {
    let Some(value) = keys.value(key) else { return Ok(Vec::new()) };
    let found = ids(value);
    let n_values = value.as_array().map_or(1, Vec::len);
    if found.len() != n_values {
        return Err(keys.unsupported(
            key,
            value,
            "a token id is a whole number; a list holds several",
        ));
    }
    let mut known: Vec<u32> = Vec::new();
    for id in found {
        match u32::try_from(id).ok().filter(|&id| (id as usize) < vocab_size) {
            Some(id) if known.contains(&id) => {}
            Some(id) => known.push(id),
            None if id < 0 => {}
            None => keys.note(format!("{key} = {id} lies outside the vocabulary and is not used")),
        }
    }
    Ok(known)
}

fn ids(value: &Value) -> Vec<i64> {
    match value {
        Value::Array(values) => values.iter().filter_map(Value::as_i64).collect(),
        other => other.as_i64().into_iter().collect(),
    }
}
