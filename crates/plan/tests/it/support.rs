//! A directory with a recipe and its data.

use std::path::Path;

use plan::{Plan, Request, Result, Unwatched};

/// Two hundred rows of text, all different.
pub(crate) fn rows() -> String {
    (0..200).fold(String::new(), |text, n| {
        text + &format!("{{\"text\": \"row {n} of a text about the number {n}\"}}\n")
    })
}

/// Sixty chats, all different.
pub(crate) fn chats() -> String {
    (0..60).fold(String::new(), |text, n| {
        text + &format!("{{\"prompt\": \"How much is {n}?\", \"completion\": \"It is {n}.\"}}\n")
    })
}

/// Twenty pairs of answers.
pub(crate) fn pairs() -> String {
    (0..20).fold(String::new(), |text, n| {
        text + &format!(
            "{{\"prompt\": \"Say {n}.\", \"chosen\": \"Yes, {n}.\", \"rejected\": \"No, not {n}.\"}}\n"
        )
    })
}

/// Both stages of a tiny model on `rows.jsonl` and `chats.jsonl`.
pub(crate) const RECIPE: &str = r#"
[tokenizer]
train = { kind = "byte-bpe", vocab_size = 300 }

[model]
family = "llama"
hidden_size = 16
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 32
tie_word_embeddings = true

[pretrain]
data = [{ path = "rows.jsonl" }]
sequence_length = 32
tokens_per_step = 256
epochs = 2
optimizer = { lr = 1e-3 }
eval = { holdout = 0.1 }

[sft]
start = "pretrain"
data = [{ path = "chats.jsonl" }]
sequence_length = 64
tokens_per_step = 256
micro_batch = 3
max_steps = 5
optimizer = { lr = 1e-3 }
"#;

pub(crate) fn write(dir: &Path, name: &str, text: &str) {
    fsio::write_atomic(dir.join(name), text).expect("a file");
}

/// A directory with the recipe and its data.
pub(crate) fn folder(recipe: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), "r.toml", recipe);
    write(dir.path(), "rows.jsonl", &rows());
    write(dir.path(), "chats.jsonl", &chats());
    write(dir.path(), "pairs.jsonl", &pairs());
    dir
}

/// Plans `r.toml` of a directory, with `--set` overrides.
pub(crate) fn plan_in(dir: &Path, set: &[(&str, &str)], stage: Option<&str>) -> Result<Plan> {
    let set: Vec<(String, String)> =
        set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let loaded = recipe::load(&dir.join("r.toml"), &set)?;
    let request = Request {
        stage: stage.map(str::to_owned),
        runs_dir: Some(dir.join("runs")),
        ..Request::default()
    };
    plan::plan(&loaded, &request, &mut Unwatched)
}
