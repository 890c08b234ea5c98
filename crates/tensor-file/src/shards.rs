//! File names of a directory of weights, the division into shards, and their index.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde_json::{Value, json};

use crate::{Error, Result};

/// The weights of a directory that is not sharded.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The index of a sharded directory: tensor name → file name.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// The file name of a shard, counted from 0.
pub fn shard_name(shard_idx: usize, n_shards: usize) -> String {
    format!("model-{:05}-of-{n_shards:05}.safetensors", shard_idx + 1)
}

/// Runs of consecutive tensors of at most `max_bytes` in total; a larger tensor is a run of its own.
pub fn split_by_bytes(tensor_bytes: &[u64], max_bytes: u64) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (idx, more) in tensor_bytes.iter().enumerate() {
        if idx > start && bytes + more > max_bytes {
            runs.push(start..idx);
            (start, bytes) = (idx, 0);
        }
        bytes += more;
    }
    runs.push(start..tensor_bytes.len());
    runs
}

/// The text of an index file, as transformers writes it.
pub fn index_json(
    weight_map: &BTreeMap<&str, String>,
    total_parameters: u64,
    total_bytes: u64,
) -> String {
    let index = json!({
        "metadata": { "total_parameters": total_parameters, "total_size": total_bytes },
        "weight_map": weight_map,
    });
    format!("{index:#}\n")
}

/// Tensor name → file name.
pub(crate) fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let malformed = |reason: String| Error::Malformed { path: path.to_owned(), reason };
    let text = fsio::read_text_capped(path, fsio::limits::SAFETENSORS_INDEX_BYTES)?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| malformed(format!("not valid JSON: {error}")))?;
    let Some(map) = value.get("weight_map").and_then(Value::as_object) else {
        return Err(malformed("missing key `weight_map`".to_owned()));
    };
    let entry = |(name, file): (&String, &Value)| match file.as_str() {
        Some(file) => Ok((name.clone(), file.to_owned())),
        None => Err(malformed(format!("`weight_map` names no file for tensor `{name}`"))),
    };
    let map: BTreeMap<String, String> = map.iter().map(entry).collect::<Result<_>>()?;
    if map.is_empty() { Err(malformed("`weight_map` is empty".to_owned())) } else { Ok(map) }
}
