//! Writes a reference model (a directory of tests/golden/models) as a GGUF file, for `tests/interop/check_llama_cpp.py`.
//!
//! `cargo run --profile ci -p gguf --example write_reference -- DIR FILE.gguf TYPE`. Reference models have no tokenizer;
//! the file gets a byte-level one whose tokens beyond the bytes are never used.

#![allow(clippy::disallowed_methods, clippy::print_stdout)]

use std::error::Error;
use std::path::Path;

use gguf::{FileType, ModelExport, TokenizerSource};
use serde_json::{Map, Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, out, file_type] = arguments.as_slice() else {
        return Err("usage: write_reference DIR FILE.gguf TYPE".into());
    };
    let file_type = FileType::from_name(file_type).ok_or("no such type")?;
    let dir = Path::new(dir);
    let config: Value = serde_json::from_slice(&std::fs::read(dir.join("config.json"))?)?;
    let file = std::fs::read(dir.join("model.safetensors"))?;
    let n = u64::from_le_bytes(file[..8].try_into()?) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&file[8..8 + n])?;
    let mut tensors = Vec::new();
    for (name, entry) in &header {
        let Some(offsets) = entry.get("data_offsets") else { continue };
        let number = |value: &Value| value.as_u64().unwrap_or(0) as usize;
        let bytes = &file[8 + n + number(&offsets[0])..8 + n + number(&offsets[1])];
        let values: Vec<f32> =
            bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let shape: Vec<usize> =
            entry["shape"].as_array().into_iter().flatten().map(number).collect();
        tensors.push((name.clone(), shape, values));
    }
    // The experts of a layer in their order.
    tensors.sort_by_key(|(name, _, _)| expert_order(name));
    let shapes: Vec<(String, Vec<usize>)> =
        tensors.iter().map(|(name, shape, _)| (name.clone(), shape.clone())).collect();
    let json = tokenizer();
    let tokenizer = TokenizerSource {
        json: &json,
        bos: Some(1),
        eos: Some(2),
        end_of_turn: None,
        pad: None,
        adds_bos: false,
        adds_eos: false,
        template: None,
    };
    let export = ModelExport::new(&config, &tokenizer, &shapes, file_type, "reference")?;
    let mut bytes = Vec::new();
    let mut writer = export.begin(&mut bytes)?;
    for (name, _, values) in &tensors {
        writer.tensor(name, values)?;
    }
    writer.finish()?;
    std::fs::write(out, bytes)?;
    println!("{out}");
    Ok(())
}

fn expert_order(name: &str) -> (String, usize) {
    let parts = name.split_once(".experts.").and_then(|(before, rest)| {
        let (expert, part) = rest.split_once('.')?;
        Some((format!("{before}.experts.{part}"), expert.parse().ok()?))
    });
    parts.unwrap_or_else(|| (name.to_owned(), 0))
}

/// A byte-level tokenizer of 160 tokens; reference models have at least as many.
fn tokenizer() -> Value {
    let vocab: Map<String, Value> = (0..160_u32)
        .filter_map(|id| Some((char::from_u32(0x100 + id)?.to_string(), json!(id))))
        .collect();
    json!({
        "added_tokens": [],
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false },
        "model": { "type": "BPE", "vocab": vocab, "merges": [] },
    })
}
