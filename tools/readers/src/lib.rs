//! One function per reader of foreign bytes: fuzz targets and property tests call the same entry points.
//!
//! Each takes the bytes of a file and returns whether they were accepted. Whatever the bytes, it must neither panic nor
//! hang, and its memory must stay bounded; a caught panic of a parser is an error like any other.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A reader: the bytes of a file → whether they were accepted.
pub type Reader = fn(&[u8]) -> bool;

/// All readers by the name of their fuzz target and of their directory in `fuzz/seeds`.
pub const READERS: [(&str, Reader); 9] = [
    ("recipe", recipe),
    ("task", task),
    ("config_json", config_json),
    ("tokenizer_json", tokenizer_json),
    ("chat_template", chat_template),
    ("safetensors", safetensors),
    ("gguf", gguf),
    ("jsonl", jsonl),
    ("parquet", parquet),
];

/// Largest tensor whose values are read, in elements.
const TENSOR_ELEMENTS: usize = 1 << 16;

/// A recipe in TOML. An error is also formatted, because it points into the text.
pub fn recipe(bytes: &[u8]) -> bool {
    let parsed = recipe::parse(bytes, Path::new("recipe.toml"), &[]);
    parsed.map_err(|error| (error.to_string(), error.hint())).is_ok()
}

/// A task file. The prompts of an accepted task are built from two rows, which may not fit.
pub fn task(bytes: &[u8]) -> bool {
    let (dir, path) = file("task.toml", bytes);
    let rows = r#"{"question": "What is old?", "choices": {"text": ["a map", "an eel"], "label": ["A", "B"]}, "answerKey": "B"}"#;
    if fsio::write_atomic(dir.path().join("rows.jsonl"), format!("{rows}\n{rows}\n")).is_err() {
        return false;
    }
    let shown = |error: tasks::Error| (error.to_string(), error.hint());
    let Ok(task) = tasks::Task::open(&path).map_err(shown) else { return false };
    let options = tasks::TaskOptions { shots: 1, limit: Some(2), data_dir: None };
    task.items(&options).map_err(shown).is_ok()
}

/// A model's config.json, with the parameters and sizes that follow from it.
pub fn config_json(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice(bytes) else { return false };
    arch::ModelConfig::from_json(&value, Path::new("config.json"))
        .map_err(|error| error.to_string())
        .is_ok()
}

/// A tokenizer.json. An accepted tokenizer encodes and decodes a text.
pub fn tokenizer_json(bytes: &[u8]) -> bool {
    let (_dir, path) = file("tokenizer.json", bytes);
    let tokenizer = tokenizer::Tokenizer::from_dir_or_file(&path);
    let Ok(tokenizer) = tokenizer.map_err(|error| error.to_string()) else { return false };
    // Encoding may fail where the vocabulary lacks a character.
    if let Ok(ids) = tokenizer.encode("Hello, wörld! 日本\n\t 123") {
        let _ = tokenizer.decode(&ids, false);
    }
    true
}

/// A chat template in Jinja. An accepted template renders a conversation, which may fail.
pub fn chat_template(bytes: &[u8]) -> bool {
    let Ok(source) = std::str::from_utf8(bytes) else { return false };
    let Ok(template) = tokenizer::ChatTemplate::from_source("fuzz", source) else { return false };
    let context = serde_json::json!({
        "messages": [
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": "Hi {{ there }} <|im_end|>" },
            { "role": "assistant", "content": "Hello" },
        ],
        "tools": null,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "add_generation_prompt": true,
    });
    template.render(&context).is_ok()
}

/// A safetensors file: the header, then the values of small tensors.
pub fn safetensors(bytes: &[u8]) -> bool {
    let (_dir, path) = file("model.safetensors", bytes);
    let Ok(file) = tensor_file::TensorFile::open(&path) else { return false };
    file.tensors().all(|tensor| {
        let elements = tensor.shape().iter().try_fold(1_usize, |n, size| n.checked_mul(*size));
        elements.is_none_or(|n| n > TENSOR_ELEMENTS) || tensor.weights().is_ok()
    })
}

/// A GGUF file: the header, then the values of small tensors.
pub fn gguf(bytes: &[u8]) -> bool {
    let (_dir, path) = file("model.gguf", bytes);
    let opened = gguf::GgufFile::open(&path);
    let Ok(file) = opened.map_err(|error| (error.to_string(), error.hint())) else {
        return false;
    };
    let small: Vec<String> = file
        .tensors()
        .iter()
        .filter(|info| info.n_elements() <= TENSOR_ELEMENTS)
        .map(|info| info.name.clone())
        .collect();
    small.iter().all(|name| file.read(name).is_ok())
}

/// Rows of a JSON-lines file.
pub fn jsonl(bytes: &[u8]) -> bool {
    rows("rows.jsonl", bytes)
}

/// Rows of a Parquet file.
pub fn parquet(bytes: &[u8]) -> bool {
    rows("rows.parquet", bytes)
}

fn rows(name: &str, bytes: &[u8]) -> bool {
    let (_dir, path) = file(name, bytes);
    let rows = data::read_rows(&path, None, None, &data::BytesRead::default());
    // Errors are formatted: they quote places and values of the file.
    rows.and_then(|mut rows| rows.try_for_each(|row| row.map(drop)))
        .map_err(|error| (error.to_string(), error.hint()))
        .is_ok()
}

/// A file of these bytes in a temporary directory of its own.
///
/// # Panics
/// If the temporary directory cannot be written.
// Written without the syncs of fsio: a fuzzer writes thousands of files per second and needs none of them later.
#[allow(clippy::disallowed_methods)]
fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).expect("a temporary file");
    (dir, path)
}
