//! Weights on the command line: averages over updates, merged models, packed base models, and replays of references.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::support::{Outcome, Place, root, tiny_recipe};

/// Fine-tuning with an adapter, after the recipe's pretraining.
const SFT: &str = "\n[sft]\nstart = \"pretrain\"\nlora = { LORA }\ndata = [{ path = \"chats.jsonl\" }]\n\
                   chat_template = \"plain\"\nsequence_length = 32\ntokens_per_step = 64\nmax_steps = 3\n\
                   optimizer = { lr = 1e-1 }\n";

/// A directory with text, chats and a recipe.
fn place(extra: &str) -> Place {
    let place = Place::new();
    let text = "The quick brown fox jumps over the lazy dog, again and again.\n".repeat(40);
    let chats = "{\"prompt\": \"Hi?\", \"completion\": \"Ho!\"}\n".repeat(8);
    let recipe = tiny_recipe("{ path = \"text.txt\" }", extra);
    place.write("text.txt", text).write("chats.jsonl", chats).write("tiny.toml", recipe);
    place
}

fn succeeds(place: &Place, args: &[&str]) -> Outcome {
    let outcome = place.temper(args);
    assert_eq!(outcome.code, Some(0), "{args:?}: {}", outcome.stderr);
    outcome
}

/// The f32 tensors of a safetensors file, by name.
pub(crate) fn tensors(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize;
    let (header, data) = rest.split_at(length);
    let header: Value = serde_json::from_slice(header).expect("a header");
    let entries = header.as_object().expect("an object").iter();
    let entries = entries.filter(|(name, _)| *name != "__metadata__");
    entries
        .map(|(name, entry)| {
            let offset =
                |idx: usize| entry["data_offsets"][idx].as_u64().expect("an offset") as usize;
            let values = data[offset(0)..offset(1)].chunks_exact(4);
            let values = values.map(|value| f32::from_le_bytes(value.try_into().expect("4 bytes")));
            (name.clone(), values.collect())
        })
        .collect()
}

#[test]
fn averaged_weights_are_exported_and_stored_beside_those_of_the_last_update() {
    let place = place("ema = 0.75\n");
    let plan = succeeds(&place, &["plan", "tiny.toml"]).stdout;
    let note = "validation and model/ use averaged weights (ema = 0.75, about the last 4 updates); \
                the stage makes 3 updates";
    assert!(plan.contains(note), "{plan}");
    succeeds(&place, &["run", "tiny.toml"]);
    let stage = place.path().join("runs/tiny/pretrain");
    let checkpoint = stage.join("checkpoints/step-000003");
    let exported = tensors(&stage.join("model/model.safetensors"));
    assert_eq!(exported, tensors(&checkpoint.join("ema.safetensors")));
    assert_ne!(exported, tensors(&checkpoint.join("model.safetensors")));
    // Another decay would be another model.
    let error = place.error(&["run", "tiny.toml", "--set", "pretrain.ema=0.5"]);
    assert!(error.starts_with("exit 2") && error.contains("pretrain.ema"), "{error}");
    let error = place.error(&["plan", "tiny.toml", "--set", "pretrain.ema=1.0"]);
    assert!(error.starts_with("exit 2") && error.contains("`ema`"), "{error}");
}

#[test]
fn models_and_adapters_are_merged_by_their_weights() {
    let place = place(&SFT.replace("LORA", "rank = 2"));
    succeeds(&place, &["run", "tiny.toml"]);
    let (whole, adapter) = ("runs/tiny/pretrain", "runs/tiny/sft");
    succeeds(&place, &["export", adapter, "--to", "tuned"]);
    succeeds(&place, &["merge", whole, "tuned", "--weights", "0.25,0.75", "--to", "between"]);
    let at = |dir: &str| tensors(&place.path().join(dir).join("model.safetensors"));
    let (first, second, between) = (at("runs/tiny/pretrain/model"), at("tuned"), at("between"));
    assert_eq!(first.keys().collect::<Vec<_>>(), between.keys().collect::<Vec<_>>());
    let mut n_moved = 0;
    for (name, values) in &between {
        for ((value, a), b) in values.iter().zip(&first[name]).zip(&second[name]) {
            assert!((value - (0.25 * a + 0.75 * b)).abs() < 1e-6, "{name}");
            n_moved += usize::from(a != b);
        }
    }
    assert!(n_moved > 100, "{n_moved}");
    // Half of an adapter twice is the adapter.
    let halves = ["merge", adapter, adapter, "--weights", "0.5,0.5", "--to", "twice"];
    succeeds(&place, &halves);
    succeeds(&place, &["export", "twice", "--base", whole, "--to", "twice-merged"]);
    for (name, values) in &at("twice-merged") {
        for (value, expected) in values.iter().zip(&second[name]) {
            assert!((value - expected).abs() < 1e-5, "{name}");
        }
    }
    for (weights, message) in [
        ("nan,1", "not a finite number: `NaN`"),
        ("1e39,1", "not a finite number: `1"),
        ("0,0", "the weights sum to 0: `0,0`"),
        ("1,-1", "the weights sum to 0: `1,-1`"),
        ("1", "1 weights for 2 models"),
    ] {
        let merge = ["merge", whole, whole, "--weights", weights, "--to", "none"];
        let error = place.error(&merge);
        assert!(error.starts_with("exit 2") && error.contains(message), "{error}");
    }
    let error = place.error(&["merge", whole, adapter, "--to", "mixed"]);
    assert!(error.starts_with("exit 2"), "{error}");
    assert!(!place.path().join("mixed").exists());
}

#[test]
fn adapters_on_packed_base_models_are_trained_and_merged() {
    let place = place(&SFT.replace("LORA", "rank = 2, base_dtype = \"DTYPE\""));
    let recipe = std::fs::read_to_string(place.path().join("tiny.toml")).expect("a recipe");
    for dtype in ["nf4", "int8"] {
        place.write("tiny.toml", recipe.replace("DTYPE", dtype));
        succeeds(&place, &["run", "tiny.toml", "--name", dtype]);
        let stage = format!("runs/{dtype}/sft");
        let record = place.path().join(&stage).join("model/base.json");
        let record = std::fs::read_to_string(record).expect("a record");
        let record: Value = serde_json::from_str(&record).expect("JSON");
        assert_eq!(record["base_dtype"], dtype);
        let merged = format!("merged-{dtype}");
        let outcome = succeeds(&place, &["export", &stage, "--to", &merged]);
        assert!(outcome.stderr.contains("KL"), "{}", outcome.stderr);
        let says = |model: &str| {
            let prompt = ["--chat", "--prompt", "Hi?", "--greedy", "--max-new-tokens", "6"];
            succeeds(&place, &[&["generate", model], &prompt[..]].concat()).stdout
        };
        assert_eq!(says(&stage), says(&merged), "{dtype}");
    }
}

#[test]
fn replays_count_refusals_apart_from_wrong_numbers() {
    let place = Place::new();
    let golden = root().join("tests/golden");
    let passing = golden.join("preference.safetensors").display().to_string();
    let outcome = place.temper(&["verify", &passing]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.stderr, "1 reference: 1 passed, 0 with wrong numbers, 0 refused\n");

    place.write("other.safetensors", "not vectors");
    let refused = place.temper(&["verify", &passing, "other.safetensors"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    let summary = "2 references: 1 passed, 0 with wrong numbers, 1 refused";
    assert!(refused.stderr.contains(summary), "{}", refused.stderr);

    // One loss of a reference changed in its last byte, the exponent of the last value.
    let mut bytes = std::fs::read(&passing).expect("a reference");
    *bytes.last_mut().expect("a byte") ^= 1;
    place.write("preference.safetensors", bytes);
    let wrong = place.temper(&["verify", "preference.safetensors", "other.safetensors"]);
    assert_eq!(wrong.code, Some(1), "{}", wrong.stderr);
    let summary = "2 references: 0 passed, 1 with wrong numbers, 1 refused";
    assert!(wrong.stderr.contains(summary), "{}", wrong.stderr);
}
