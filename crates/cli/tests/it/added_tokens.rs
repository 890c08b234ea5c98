//! Reward models whose tokenizer gets new tokens, with all weights and with an adapter: from the run to its exports.

use serde_json::Value;

use crate::support::{Outcome, Place, TEXT, tiny_recipe};
use crate::weights::tensors;

const WIDTH: usize = 16;
const OLD_ROWS: usize = 300;

/// A directory with the finished run of a reward model that adds a token and a special token; `lora` are keys of the stage.
fn trained(lora: &str) -> Place {
    let place = Place::new();
    let reward = format!(
        "\n[reward]\nstart = \"pretrain\"\n{lora}add_tokens = [\"<think>\"]\n\
         add_special_tokens = [\"<|eot|>\"]\ndata = [{{ path = \"pairs.jsonl\" }}]\n\
         chat_template = \"plain\"\nsequence_length = 64\npairs_per_step = 2\nmax_steps = 2\n\
         optimizer = {{ lr = 1e-1 }}\n"
    );
    let recipe = tiny_recipe("{ path = \"text.txt\" }", &reward)
        .replace("family = \"llama\"", "family = \"llama\"\ninitializer_range = 0.3")
        .replace("max_position_embeddings = 32", "max_position_embeddings = 160");
    let pair = "{\"prompt\": \"Hi?\", \"chosen\": \"<think>Ho!\", \"rejected\": \"No.\"}\n";
    let texts = ["<think>Ho!", "Ho!"]
        .map(|completion| format!("{{\"prompt\": \"Hi?\", \"completion\": \"{completion}\"}}\n"));
    place
        .write("text.txt", TEXT.repeat(40))
        .write("pairs.jsonl", pair.repeat(8))
        .write("texts.jsonl", texts.concat())
        .write("raw.txt", "<think>Ho!<|eot|>")
        .write("tiny.toml", recipe);
    succeeds(&place, &["run", "tiny.toml"]);
    place
}

fn succeeds(place: &Place, args: &[&str]) -> Outcome {
    let outcome = place.temper(args);
    assert_eq!(outcome.code, Some(0), "{args:?}: {}", outcome.stderr);
    outcome
}

/// Scores of the two texts: with the new token and without.
fn scores(place: &Place, model: &str) -> [f64; 2] {
    let stdout = succeeds(place, &["score", model, "--texts", "texts.jsonl"]).stdout;
    let rows: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    [0, 1].map(|row| rows[row]["score"].as_f64().expect("a score"))
}

/// The rows of the embedding in a directory of weights.
fn rows(place: &Place, dir: &str) -> Vec<f32> {
    let tensors = tensors(&place.path().join(dir).join("model.safetensors"));
    tensors["model.embed_tokens.weight"].clone()
}

/// The row that both new tokens begin with.
fn mean_row(old: &[f32]) -> Vec<f32> {
    let column = |column: usize| old.iter().skip(column).step_by(WIDTH).map(|x| f64::from(*x));
    (0..WIDTH).map(|at| (column(at).sum::<f64>() / OLD_ROWS as f64) as f32).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Checks the run, and its export to `out` with merged weights.
fn check(place: &Place) {
    succeeds(place, &["export", "runs/tiny/reward", "--to", "out"]);
    succeeds(place, &["verify", "out"]);
    let config = std::fs::read_to_string(place.path().join("out/config.json")).expect("a file");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!(config["vocab_size"], OLD_ROWS + 2);
    assert_eq!(config["architectures"][0], "LlamaForSequenceClassification");
    let ids = succeeds(place, &["tokenizer", "encode", "out", "--file", "raw.txt"]).stdout;
    let ids: Vec<usize> = serde_json::from_str(ids.trim()).expect("ids");
    assert_eq!((ids.first(), ids.last()), (Some(&OLD_ROWS), Some(&(OLD_ROWS + 1))));

    let (old, new) = (rows(place, "runs/tiny/pretrain/model"), rows(place, "out"));
    assert_eq!((old.len(), new.len()), (OLD_ROWS * WIDTH, (OLD_ROWS + 2) * WIDTH));
    let trained = &new[OLD_ROWS * WIDTH..(OLD_ROWS + 1) * WIDTH];
    let moved = largest_difference(trained, &mean_row(&old));
    assert!(moved > 1e-2, "the row of a token in the data was not trained: {moved}");

    let (run, export) = (scores(place, "runs/tiny/reward"), scores(place, "out"));
    for (run, export) in run.iter().zip(&export) {
        assert!((run - export).abs() < 1e-4, "{run} {export}");
    }
    assert!((run[0] - run[1]).abs() > 1e-3, "the new token changes no score: {run:?}");
}

#[test]
fn a_reward_model_of_all_weights_gets_tokens() {
    let place = trained("");
    check(&place);
}

#[test]
fn a_reward_adapter_gets_tokens_and_trains_their_rows() {
    let place = trained("lora = { rank = 2, trainable_token_indices = [300, 301] }\n");
    check(&place);
    // Rows of old tokens are frozen, and the base model with the new rows is a part of the run.
    let (old, new) = (rows(&place, "runs/tiny/pretrain/model"), rows(&place, "out"));
    assert!(old[..] == new[..OLD_ROWS * WIDTH]);
    succeeds(&place, &["export", "runs/tiny/reward", "--adapter", "--to", "peft"]);
    let replay = |base| place.temper(&["verify", "peft", "--base", base]);
    let resized = replay("runs/tiny/reward/base");
    assert_eq!(resized.code, Some(0), "{}", resized.stderr);
    let small = replay("runs/tiny/pretrain");
    assert_eq!(small.code, Some(2), "{}", small.stdout);
}
