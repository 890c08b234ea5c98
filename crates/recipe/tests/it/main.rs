//! Tests of the crate's public functions. Unit tests are in the source files.

#![allow(clippy::print_stderr, reason = "a test says why it skipped")]

mod alignment;
mod conformance;
mod docs;
mod errors;
mod hostile;
mod overrides;
mod recipes;
mod sections;

use std::path::{Path, PathBuf};

use recipe::{Error, Loaded};

/// A small valid recipe.
const GOOD: &str = r#"# A comment that stays.
seed = 7

[tokenizer]
train = { kind = "byte-bpe", vocab_size = 512 }

[model]
family = "llama"
hidden_size = 64
num_hidden_layers = 2
num_attention_heads = 4
intermediate_size = 128

[pretrain]
data = [{ path = "text.txt" }, { path = "data:more/*.jsonl.gz", text = "body" }]
sequence_length = 64
tokens_per_step = 512    # 8 rows
max_steps = 20
optimizer = { lr = 1e-3 }
schedule = { kind = "cosine", warmup_steps = 2 }

[sft]
start = "pretrain"
data = [{ path = "chats.jsonl" }]
sequence_length = 64
tokens_per_step = 512
epochs = 1
optimizer = { lr = 1e-4 }
"#;

fn parse(text: &str) -> recipe::Result<Loaded> {
    parse_with(text, &[])
}

fn parse_with(text: &str, overrides: &[&str]) -> recipe::Result<Loaded> {
    let split = |argument: &&str| {
        let (key, value) = argument.split_once('=').unwrap();
        (key.to_owned(), value.to_owned())
    };
    let overrides: Vec<(String, String)> = overrides.iter().map(split).collect();
    recipe::parse(text.as_bytes(), Path::new("recipes/mine.toml"), &overrides)
}

/// An error as printed by the command line.
fn shown(error: &Error) -> String {
    let hint = error.hint().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
    format!("error: {error}{hint}")
}

/// The error of the valid recipe with one text replaced.
fn refused(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "`{from}` must stand in the good recipe once");
    shown(&parse(&GOOD.replace(from, to)).expect_err("this recipe was taken"))
}

/// The error of the valid recipe with overrides.
fn refused_set(overrides: &[&str]) -> String {
    shown(&parse_with(GOOD, overrides).expect_err("these overrides were taken"))
}

/// Root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The committed recipes with their texts.
fn committed() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(root().join("recipes"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 5, "the committed recipes are not where the test looks for them");
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}
