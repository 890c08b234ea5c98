//! Ids of the beginning, end and padding tokens in config.json and generation_config.json. The tokenizer's own ids take
//! precedence over these; that is decided elsewhere.

use serde_json::{Map, Value, json};

use crate::config_reader::ConfigReader;
use crate::error::Result;

/// The special token ids of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenIds {
    /// Beginning of text.
    pub bos: Option<u32>,
    /// End of text: all ids that end a text, the main one first, without duplicates.
    pub eos: Vec<u32>,
    /// Padding.
    pub pad: Option<u32>,
}

impl TokenIds {
    /// Reads `bos_token_id`, `eos_token_id` (a number or a list) and `pad_token_id`. Ids outside the vocabulary,
    /// such as the -1 in some older files, count as absent.
    pub(crate) fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<Self> {
        let bos = one(reader, "bos_token_id", vocab_size);
        let pad = one(reader, "pad_token_id", vocab_size);
        let eos = many(reader, "eos_token_id", vocab_size);
        Ok(Self { bos: bos?, eos: eos?, pad: pad? })
    }

    /// Merges the ids of generation_config.json: end ids are appended, the others fill absent ones.
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

    /// The keys of config.json and generation_config.json; absent ids are null.
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

fn one(reader: &mut ConfigReader, key: &str, vocab_size: usize) -> Result<Option<u32>> {
    Ok(many(reader, key, vocab_size)?.first().copied())
}

fn many(reader: &mut ConfigReader, key: &str, vocab_size: usize) -> Result<Vec<u32>> {
    let Some(value) = reader.value(key) else { return Ok(Vec::new()) };
    let found = ids(value);
    let n_values = value.as_array().map_or(1, Vec::len);
    if found.len() != n_values {
        let hint = "a token id is a whole number, or a list of them";
        return Err(reader.unsupported(key, value, hint));
    }
    let mut known: Vec<u32> = Vec::new();
    for id in found {
        match u32::try_from(id).ok().filter(|&id| (id as usize) < vocab_size) {
            Some(id) if known.contains(&id) => {}
            Some(id) => known.push(id),
            None if id < 0 => {}
            None => reader.note(format!("{key} = {id} is outside the vocabulary and is not used")),
        }
    }
    Ok(known)
}

fn ids(value: &Value) -> Vec<i64> {
    match value {
        Value::Array(values) => values.iter().filter_map(Value::as_i64).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            value.as_i64().into_iter().collect()
        }
    }
}
