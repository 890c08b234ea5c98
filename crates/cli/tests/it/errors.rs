//! Every mistake causes one message with location, value and hint, and exit code 2.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::support::{Place, TEXT, tiny_recipe, trained};

fn plan_with(data: &str, file: &str, bytes: impl AsRef<[u8]>) -> String {
    let place = Place::new();
    place.write(file, bytes).write("r.toml", tiny_recipe(data, ""));
    place.error(&["plan", "r.toml"])
}

#[test]
fn a_recipe_that_is_not_there() {
    assert_snapshot!(Place::new().error(&["plan", "none.toml"]));
}

#[test]
fn an_unknown_key() {
    let place = Place::new();
    place.write("text.txt", TEXT).write(
        "r.toml",
        tiny_recipe("{ path = \"text.txt\" }", "schedule = { warmup_step = 20 }\n"),
    );
    assert_snapshot!(place.error(&["plan", "r.toml"]));
}

#[test]
fn an_override_of_an_unknown_key() {
    let place = Place::new();
    place.write("text.txt", TEXT).write("r.toml", tiny_recipe("{ path = \"text.txt\" }", ""));
    assert_snapshot!(place.error(&["plan", "r.toml", "--set", "pretrain.max_step=3"]));
}

#[test]
fn a_data_file_that_is_not_there() {
    let place = Place::new();
    place.write("r.toml", tiny_recipe("{ path = \"text.txt\" }", ""));
    assert_snapshot!(place.error(&["plan", "r.toml"]));
}

#[test]
fn an_empty_file() {
    assert_snapshot!(plan_with("{ path = \"rows.jsonl\" }", "rows.jsonl", ""));
}

#[test]
fn bad_json_at_a_line() {
    let rows = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n{\"text\": \"three\n";
    assert_snapshot!(plan_with("{ path = \"rows.jsonl\" }", "rows.jsonl", rows));
}

#[test]
fn a_missing_column() {
    let rows = "{\"txt\": \"one\", \"label\": 1}\n".repeat(3);
    assert_snapshot!(plan_with("{ path = \"rows.jsonl\", text = \"text\" }", "rows.jsonl", rows));
}

#[test]
fn invalid_utf8() {
    assert_snapshot!(plan_with("{ path = \"text.txt\" }", "text.txt", b"abc\ndef \xff\xfe\n"));
}

#[test]
fn a_row_longer_than_the_limit() {
    let row = format!("{{\"text\": \"{}\"}}\n", "a".repeat(5 << 20));
    assert_snapshot!(plan_with("{ path = \"rows.jsonl\" }", "rows.jsonl", row));
}

#[test]
fn a_row_longer_than_the_models_context() {
    let place = Place::new();
    place.write("text.txt", TEXT.repeat(40));
    place.write("r.toml", tiny_recipe("{ path = \"text.txt\" }", ""));
    assert_snapshot!(place.error(&["plan", "r.toml", "--set", "pretrain.sequence_length=64"]));
}

#[test]
fn a_device_that_is_not_there() {
    let place = Place::new();
    place.write("text.txt", TEXT).write("r.toml", tiny_recipe("{ path = \"text.txt\" }", ""));
    assert_snapshot!(place.error(&["plan", "r.toml", "--set", "device=cuda"]));
}

#[test]
fn a_stage_that_the_recipe_lacks() {
    let place = Place::new();
    place.write("text.txt", TEXT).write("r.toml", tiny_recipe("{ path = \"text.txt\" }", ""));
    assert_snapshot!(place.error(&["plan", "r.toml", "--stage", "sft"]));
}

#[test]
fn a_stage_that_starts_from_one_that_has_not_run() {
    let place = Place::new();
    let sft = "\n[sft]\nstart = \"pretrain\"\ndata = [{ path = \"chats.jsonl\" }]\n\
               chat_template = \"plain\"\nsequence_length = 32\ntokens_per_step = 64\nmax_steps = 2\n\
               optimizer = { lr = 1e-3 }\n";
    let rows = "{\"prompt\": \"Hi?\", \"completion\": \"Ho!\"}\n".repeat(8);
    place.write("text.txt", TEXT.repeat(40)).write("chats.jsonl", rows);
    place.write("r.toml", tiny_recipe("{ path = \"text.txt\" }", sft));
    assert_snapshot!(place.error(&["run", "r.toml", "--stage", "sft"]));
}

#[test]
fn models_that_are_none() {
    let place = Place::new();
    place.write("folder/file", "");
    assert_snapshot!("no_such_path", place.error(&["generate", "nowhere", "--prompt", "a"]));
    assert_snapshot!("no_model", place.error(&["generate", "folder", "--prompt", "a"]));
    assert_snapshot!("no_run", place.error(&["resume", "nowhere"]));
    assert_snapshot!("no_runs", place.error(&["runs"]));
}

#[test]
fn damaged_weights() {
    let place = trained();
    let model = place.path().join("runs/tiny/pretrain/model");
    let weights = std::fs::read(model.join("model.safetensors")).expect("weights");
    let generate = ["generate", "damaged", "--prompt", "a"];
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        let bytes = std::fs::read(model.join(name)).expect("a file of the model");
        place.write(&format!("damaged/{name}"), bytes);
    }
    place.write("damaged/model.safetensors", &weights[..weights.len() - 8]);
    assert_snapshot!("truncated", place.error(&generate));
    let mut with_nan = weights.clone();
    let at = with_nan.len() - 4;
    with_nan[at..].copy_from_slice(&f32::NAN.to_le_bytes());
    place.write("damaged/model.safetensors", &with_nan);
    assert_snapshot!("not_a_number", place.error(&generate));
    let index = json!({"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}});
    fsio::remove_file(place.path().join("damaged/model.safetensors")).expect("removed");
    place.write("damaged/model.safetensors.index.json", index.to_string());
    assert_snapshot!("a_shard_is_missing", place.error(&generate));
}

#[test]
fn a_vocabulary_that_does_not_match() {
    let place = trained();
    let model = place.path().join("runs/tiny/pretrain/model");
    let config = std::fs::read(model.join("config.json")).expect("config.json");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    config["vocab_size"] = json!(100);
    for name in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        let bytes = std::fs::read(model.join(name)).expect("a file of the model");
        place.write(&format!("small/{name}"), bytes);
    }
    place.write("small/config.json", config.to_string());
    let recipe = "[pretrain]\nstart = \"small\"\ndata = [{ path = \"text.txt\" }]\n\
                  sequence_length = 32\ntokens_per_step = 64\nmax_steps = 3\noptimizer = { lr = 1e-3 }\n";
    place.write("r.toml", recipe);
    assert_snapshot!(place.error(&["plan", "r.toml"]));
}

#[test]
fn a_prompt_longer_than_the_context() {
    let place = trained();
    let prompt = "word ".repeat(200);
    let args = ["generate", "runs/tiny/pretrain", "--prompt", &prompt];
    assert_snapshot!(place.error(&args));
}

#[test]
fn a_recipe_that_changed_under_a_run() {
    let place = trained();
    let changed = ["run", "tiny.toml", "--set", "pretrain.optimizer.lr=0.5"];
    assert_snapshot!(place.error(&changed));
    // Keys that do not affect the result may change.
    let outcome = place.temper(&["run", "tiny.toml", "--set", "pretrain.log_every_steps=1"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("skipped"), "{}", outcome.stderr);
}

/// Weights that the stage starts from have changed: resuming is refused, and the key is named.
#[test]
fn weights_that_changed_under_a_run() {
    let place = trained();
    let stage = "[sft]\nstart = \"base\"\ndata = [{ path = \"text.jsonl\" }]\nchat_template = \"plain\"\n\
                 sequence_length = 32\ntokens_per_step = 64\nmax_steps = 4\nsave_every_steps = 2\n\
                 optimizer = { lr = 1e-3 }\n";
    place
        .write("text.jsonl", "{\"prompt\": \"Hi?\", \"completion\": \"Ho!\"}\n".repeat(8))
        .write("more.toml", stage);
    for args in [&["export", "runs/tiny/pretrain", "--to", "base"][..], &["run", "more.toml"]] {
        let outcome = place.temper(args);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    }
    // As a model from elsewhere, which has no hashes of its own.
    fsio::remove_file(place.path().join("base/MANIFEST")).expect("removed");
    // As if it had been interrupted after its first checkpoint.
    let sft = place.path().join("runs/more/sft");
    fsio::remove_file(sft.join("finished.json")).expect("finished");
    fsio::remove_dir_all(sft.join("checkpoints/step-000004")).expect("a checkpoint");
    let weights = place.path().join("base/model.safetensors");
    let healthy = std::fs::read(&weights).expect("weights");
    let mut changed = healthy.clone();
    let last = changed.len() - 2;
    changed[last] ^= 1;
    fsio::write_atomic(&weights, &changed).expect("changed");
    let error = place.error(&["resume", "more"]);
    assert!(error.starts_with("exit 2\n"), "{error}");
    for line in [
        "inputs changed since this run started:\n  weights of sft.start (in ",
        "\n  weights of sft.start: model.safetensors (in ",
    ] {
        assert!(error.contains(line), "{error}");
    }
    assert!(sft.join("checkpoints/step-000002").is_dir());
    fsio::write_atomic(&weights, &healthy).expect("restored");
    let outcome = place.temper(&["resume", "more"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

#[test]
fn an_unknown_value_of_temper_kernels() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_temper"))
        .arg("devices")
        .env("TEMPER_KERNELS", "plain")
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
    assert_snapshot!(String::from_utf8_lossy(&output.stderr), @r#"
    error: unknown value of TEMPER_KERNELS: `plain`
      hint: TEMPER_KERNELS is "cpu" (the default: our own kernels, on a GPU too) or "generic" (burn's tensor operations)
    "#);
}

/// A run with a checkpoint as format 1 wrote it: exit code 2, and the directory stays as it was.
#[test]
fn a_run_made_by_an_older_temper() {
    let place = trained();
    let old = place.path().join("runs/old/pretrain/checkpoints/step-000003");
    let mut writer = fsio::DirWriter::begin(&old).expect("a directory");
    writer.write("recipe.toml", "seed = 1\n[pretrain.optimizer]\nclip = 1.0\n").expect("a file");
    writer.write("state.json", "{\"step\":3}").expect("a file");
    let info = json!({"checkpoint_format": 1, "machine": {}, "previous": null, "inputs": {}});
    writer.commit(info).expect("a checkpoint");
    assert_snapshot!(place.error(&["run", "tiny.toml", "--name", "old"]));
    assert!(fsio::verify_dir(&old).is_ok());
}
