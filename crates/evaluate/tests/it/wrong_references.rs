//! Altered references fail in the altered quantity; files that are not references are named in the error.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use evaluate::{Report, verify};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use tempfile::TempDir;
use testkit::golden_dir;

/// A copy of a golden directory.
fn copy_of(name: &str) -> (TempDir, PathBuf) {
    let keep = tempfile::tempdir().unwrap();
    let to = keep.path().join("reference");
    copy_dir(&golden_dir(name), &to);
    (keep, to)
}

fn copy_dir(from: &Path, to: &Path) {
    fsio::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Changes the bytes of one tensor of a file.
fn change(path: &Path, tensor: &str, edit: impl Fn(&mut [u8])) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: HashMap<String, (_, Vec<usize>, Vec<u8>)> = HashMap::new();
    for (name, view) in file.tensors() {
        tensors.insert(name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
    }
    edit(&mut tensors.get_mut(tensor).unwrap().2);
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    fsio::write_atomic(path, &bytes).unwrap();
}

fn add(at: usize, difference: f32) -> impl Fn(&mut [u8]) {
    move |bytes| {
        let place = &mut bytes[at * 4..at * 4 + 4];
        let value = f32::from_le_bytes(place.try_into().unwrap()) + difference;
        place.copy_from_slice(&value.to_le_bytes());
    }
}

fn replay(path: &Path) -> Report {
    let mut reports = verify(path, &kernels::device("cpu").unwrap());
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

/// Names of the quantities that fail.
fn failing(report: &Report) -> Vec<&str> {
    assert_eq!(report.error, None);
    let failing = report.quantities.iter().filter(|quantity| !quantity.passed());
    failing.map(|quantity| quantity.name.as_str()).collect()
}

#[test]
fn a_value_out_of_tolerance_fails_its_own_quantity() {
    let gradient = "model.layers.1.self_attn.k_proj.weight";
    for (file, tensor, at, quantities) in [
        ("io", "hidden_states.1", 40, &["hidden_states"][..]),
        ("io", "logits", 40, &["logits", "legacy_logits"]),
        ("io", "loss", 0, &["loss"]),
        ("grads", gradient, 7, &["gradients"]),
        ("greedy", "logits", 320 * 3 + 5, &["greedy_logits"]),
        ("greedy", "left_padded_logits", 320 * 20, &["left_padded_logits"]),
        (
            "long",
            "logits",
            320 * 119 + 1,
            &["long_logits", "cached_one_at_a_time", "cached_several_at_a_time"],
        ),
    ] {
        let (_keep, dir) = copy_of("models/llama");
        change(&dir.join(format!("{file}.safetensors")), tensor, add(at, 2e-4));
        let report = replay(&dir);
        assert_eq!(failing(&report), quantities, "{tensor}");
        assert!(!report.passed());
    }
}

#[test]
fn nan_in_a_reference_fails() {
    let (_keep, dir) = copy_of("models/llama");
    change(&dir.join("io.safetensors"), "hidden_states.2", add(9, f32::NAN));
    change(&dir.join("grads.safetensors"), "model.norm.weight", add(9, f32::NAN));
    assert_eq!(failing(&replay(&dir)), ["hidden_states", "gradients"]);
    let (_keep, dir) = copy_of("training/full");
    change(&dir.join("end/model.safetensors"), "model.norm.weight", add(9, f32::NAN));
    assert_eq!(failing(&replay(&dir)), ["weights_worst"]);
}

#[test]
fn values_at_padding_are_ignored() {
    let (_keep, dir) = copy_of("models/llama");
    // Row 1 is padded from position 14 on.
    change(&dir.join("io.safetensors"), "logits", add((19 + 14) * 320, 9.0));
    assert_eq!(failing(&replay(&dir)), [""; 0]);
}

#[test]
fn another_greedy_id_fails_unless_the_best_two_logits_tie() {
    let (_keep, dir) = copy_of("models/llama");
    let path = dir.join("greedy.safetensors");
    // Step 5 of the continuation, after the prompt's 7 ids.
    change(&path, "sequence", |bytes| bytes[(7 + 5) * 8] ^= 1);
    let report = replay(&dir);
    assert!(failing(&report).contains(&"greedy_ids"), "{}", report.to_json());
    let row = 5 * 320..6 * 320;
    change(&path, "logits", |bytes| {
        for place in bytes[row.start * 4..row.end * 4].chunks_mut(4) {
            place.copy_from_slice(&1.0_f32.to_le_bytes());
        }
    });
    let report = replay(&dir);
    assert!(!failing(&report).contains(&"greedy_ids"), "{}", report.to_json());
}

#[test]
fn weights_that_differ_fail_training() {
    let (_keep, dir) = copy_of("training/full");
    change(&dir.join("end/model.safetensors"), "lm_head.weight", |bytes| {
        for at in 0..300 {
            add(at, 1e-5)(bytes);
        }
    });
    assert_eq!(failing(&replay(&dir)), ["weights_99_9_percent"]);
    change(&dir.join("end/model.safetensors"), "lm_head.weight", add(0, 1e-3));
    assert_eq!(failing(&replay(&dir)), ["weights_worst", "weights_99_9_percent"]);
}

#[test]
fn factors_and_merged_weights_that_differ_fail() {
    let (_keep, dir) = copy_of("training/lora");
    let name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    change(&dir.join("adapter_end/adapter_model.safetensors"), name, add(0, 1e-3));
    assert_eq!(failing(&replay(&dir)), ["factors_worst"]);

    let keep = tempfile::tempdir().unwrap();
    copy_dir(&golden_dir("adapters"), keep.path());
    let dir = keep.path().join("lora");
    change(&dir.join("merged.safetensors"), "model.norm.weight", add(5, 1e-4));
    assert_eq!(failing(&replay(&dir)), ["merged_weights"]);
    change(&dir.join("io.safetensors"), "logits", add(100, 1e-3));
    assert_eq!(failing(&replay(&dir)), ["logits", "merged_weights", "merged_logits"]);
}

#[test]
fn scores_and_losses_that_differ_fail() {
    let (_keep, dir) = copy_of("reward/llama");
    change(&dir.join("io.safetensors"), "loss_centered", add(0, 1e-4));
    change(&dir.join("grads.safetensors"), "score.weight", add(3, 1e-4));
    assert_eq!(failing(&replay(&dir)), ["loss_centered", "gradients"]);

    let keep = tempfile::tempdir().unwrap();
    let path = keep.path().join("preference.safetensors");
    std::fs::copy(golden_dir("preference.safetensors"), &path).unwrap();
    change(&path, "dpo_ipo", add(1, 1e-4));
    assert_eq!(failing(&replay(&path)), ["dpo_ipo"]);
}

#[test]
fn a_wrong_legacy_config_fails() {
    let (_keep, dir) = copy_of("models/llama");
    let path = dir.join("config.legacy.json");
    let text = std::fs::read_to_string(&path).unwrap().replace("10000.0", "20000.0");
    fsio::write_atomic(&path, text.as_bytes()).unwrap();
    assert_eq!(failing(&replay(&dir)), ["legacy_logits"]);
}

#[test]
fn updates_that_differ_fail() {
    let (_keep, dir) = copy_of("ppo/k1");
    change(&dir.join("rollout.safetensors"), "returns", add(0, 1e-3));
    change(&dir.join("value_after/model.safetensors"), "score.weight", add(3, 1e-3));
    let path = dir.join("expected.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let other = text.replace("\"val/num_eos_tokens\": 4", "\"val/num_eos_tokens\": 5");
    assert_ne!(text, other);
    fsio::write_atomic(&path, other.as_bytes()).unwrap();
    assert_eq!(failing(&replay(&dir)), ["returns", "metrics", "value_after_worst"]);
}

#[test]
fn files_that_are_not_references_are_named() {
    let (_keep, dir) = copy_of("models/llama");
    fsio::remove_file(dir.join("long.safetensors")).unwrap();
    let error = replay(&dir).error.unwrap();
    assert!(error.contains("long.safetensors"), "{error}");

    fsio::write_atomic(dir.join("io.safetensors"), &b"nothing"[..]).unwrap();
    let report = replay(&dir);
    assert!(report.error.clone().unwrap().contains("io.safetensors"), "{:?}", report.error);
    assert!(!report.passed() && report.quantities.is_empty());

    fsio::remove_file(dir.join("io.safetensors")).unwrap();
    let expected = format!("{}: not a directory or file of reference vectors", dir.display());
    assert_eq!(replay(&dir).error.unwrap(), expected);
    assert!(replay(&dir).hint.is_some());

    let absent = dir.join("absent");
    assert!(replay(&absent).error.unwrap().contains("absent"));
}

#[test]
fn texts_beyond_a_model_s_context_are_named() {
    // The config.json of the model that reads the texts, and the file that has them.
    for (name, config, file) in [
        ("models/llama", "config.json", "io.safetensors"),
        ("models/llama", "config.legacy.json", "io.safetensors"),
        ("reward/llama", "config.json", "io.safetensors"),
        ("training/full", "start/config.json", "batches.safetensors"),
        ("ppo/k1", "reward/config.json", "rollout.safetensors"),
        ("quant/llama-int8", "config.json", "io.safetensors"),
    ] {
        let (_keep, dir) = copy_of(name);
        let path = dir.join(config);
        let text = std::fs::read_to_string(&path).unwrap();
        let short = text
            .replace("\"max_position_embeddings\": 128", "\"max_position_embeddings\": 5")
            .replace("\"max_position_embeddings\": 64", "\"max_position_embeddings\": 5");
        assert_ne!(text, short, "{name}");
        fsio::write_atomic(&path, short.as_bytes()).unwrap();
        let error = replay(&dir).error.unwrap();
        assert!(error.contains(file) && error.contains("the model reads 5"), "{error}");
    }
    let (_keep, online) = copy_of("online");
    let path = online.join("policy/config.json");
    let short = std::fs::read_to_string(&path)
        .unwrap()
        .replace("\"max_position_embeddings\": 128", "\"max_position_embeddings\": 5");
    fsio::write_atomic(&path, short.as_bytes()).unwrap();
    let error = replay(&online.join("dapo")).error.unwrap();
    assert!(error.contains("the model reads 5"), "{error}");
}

#[test]
fn ids_beyond_a_model_s_vocabulary_are_named() {
    let (_keep, dir) = copy_of("models/llama");
    change(&dir.join("io.safetensors"), "input_ids", |bytes| bytes[2] = 9);
    let error = replay(&dir).error.unwrap();
    assert!(error.contains("the model's ids are below 320"), "{error}");
}

#[test]
fn an_infinite_reference_fails() {
    let (_keep, dir) = copy_of("models/llama");
    change(&dir.join("io.safetensors"), "logits", add(5, f32::INFINITY));
    change(&dir.join("io.safetensors"), "loss", add(0, f32::INFINITY));
    assert_eq!(failing(&replay(&dir)), ["logits", "loss", "legacy_logits"]);
}

#[test]
fn labels_beyond_a_model_s_vocabulary_are_named() {
    let (_keep, dir) = copy_of("models/llama");
    change(&dir.join("io.safetensors"), "labels", |bytes| {
        bytes[3 * 8..4 * 8].copy_from_slice(&9000_i64.to_le_bytes());
    });
    let error = replay(&dir).error.unwrap();
    assert!(error.contains("tensor `labels` has the label"), "{error}");
}
