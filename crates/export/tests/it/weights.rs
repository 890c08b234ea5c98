//! The contents of weight files.

use std::collections::BTreeMap;
use std::path::Path;

use arch::{Dtype, Family};
use export::{Options, hugging_face, hugging_face_with};
use model::{CausalLm, load_causal_lm, visit_tensors};
use safetensors::SafeTensors;
use serde_json::json;

use crate::{byte_tokenizer, model, read_json};

type Tensors = BTreeMap<String, (safetensors::Dtype, Vec<usize>, Vec<u8>)>;

/// Every tensor of a directory, read by the reference implementation of the format.
fn tensors(dir: &Path) -> Tensors {
    let mut found = Tensors::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with("model") {
            continue;
        }
        let bytes = std::fs::read(&path).expect("a weight file");
        for (name, view) in SafeTensors::deserialize(&bytes).expect("well-formed").tensors() {
            let tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            assert!(found.insert(name.clone(), tensor).is_none(), "{name} is in two files");
        }
    }
    found
}

fn values(model: &CausalLm) -> Vec<(String, Vec<f32>)> {
    let mut all = Vec::new();
    let visited: Result<(), ()> = visit_tensors(model, |name, _, values| {
        all.push((name.to_owned(), values.to_vec()));
        Ok(())
    });
    visited.expect("nothing fails");
    all
}

fn import_and_export(dir: &Path, dtype: Dtype) {
    let device = kernels::device("cpu").expect("a CPU");
    let model = load_causal_lm(dir, &device).expect("a golden model");
    let place = tempfile::tempdir().expect("a temporary directory");
    let out = place.path().join("out");
    hugging_face(&model, &byte_tokenizer(), dtype, &out).expect("exported");
    assert_eq!(tensors(&out), tensors(dir), "{}", dir.display());
}

#[test]
fn imported_weights_are_exported_to_the_bit() {
    for name in ["llama", "llama-tied-rope3", "llama-bias-headdim", "llama-mlp-bias", "gpt2"] {
        import_and_export(&testkit::golden_dir(&format!("models/{name}")), Dtype::F32);
    }
    import_and_export(&testkit::golden_dir("models/llama-bf16-sharded"), Dtype::Bf16);
}

#[test]
fn absent_biases_are_zeros_in_the_file_and_absent_again_when_read() {
    let tokenizer = byte_tokenizer();
    let model = model(Family::Gpt2, tokenizer.vocab_size(), json!({ "bias": false }));
    let place = tempfile::tempdir().expect("a temporary directory");
    for shard_bytes in [u64::MAX, 3000] {
        let out = place.path().join(format!("out-{shard_bytes}"));
        let options = Options { shard_bytes, ..Options::new(Dtype::F32) };
        hugging_face_with(&model, &tokenizer, options, &out).expect("exported");
        let found = tensors(&out);
        assert_eq!(found.len(), model.config().file_parameters().len());
        for spec in model.config().zero_parameters() {
            let (_, shape, data) = &found[&spec.name];
            assert_eq!(shape, &spec.shape);
            assert!(data.iter().all(|&byte| byte == 0), "{} is not zero", spec.name);
        }
        let device = kernels::device("cpu").expect("a CPU");
        let again = load_causal_lm(&out, &device).expect("readable");
        assert_eq!(again.config(), model.config());
        assert_eq!(values(&again), values(&model));
    }
}

#[test]
fn shards_have_the_tensors_of_the_single_file() {
    let tokenizer = byte_tokenizer();
    let model = model(Family::Llama, tokenizer.vocab_size(), json!({}));
    let place = tempfile::tempdir().expect("a temporary directory");
    let (single, sharded) = (place.path().join("single"), place.path().join("sharded"));
    hugging_face(&model, &tokenizer, Dtype::Bf16, &single).expect("exported");
    let options = Options { shard_bytes: 4000, ..Options::new(Dtype::Bf16) };
    hugging_face_with(&model, &tokenizer, options, &sharded).expect("exported");

    assert_eq!(tensors(&single), tensors(&sharded));
    assert!(!sharded.join("model.safetensors").exists());
    let index = read_json(&sharded.join("model.safetensors.index.json"));
    let n_parameters = model.config().n_parameters();
    assert_eq!(index["metadata"]["total_size"], json!(2 * n_parameters));
    let weight_map = index["weight_map"].as_object().expect("an object");
    assert_eq!(weight_map.len(), model.config().parameters().len());
    // A tensor larger than a shard, such as the embedding, has its own shard; otherwise the limit holds.
    assert!(
        weight_map["model.embed_tokens.weight"].as_str().is_some_and(|f| f.contains("-00001-"))
    );
    for file in weight_map.values() {
        let bytes = std::fs::read(sharded.join(file.as_str().expect("a file name")));
        let bytes = bytes.expect("a shard");
        let (header_bytes, metadata) = SafeTensors::read_metadata(&bytes).expect("well-formed");
        assert!(metadata.tensors().len() == 1 || bytes.len() - 8 - header_bytes <= 4000);
    }
    let device = kernels::device("cpu").expect("a CPU");
    let [single, sharded] =
        [single, sharded].map(|dir| load_causal_lm(&dir, &device).expect("readable"));
    assert_eq!(values(&single), values(&sharded));
}

#[test]
fn weight_files_have_constant_metadata_only() {
    let tokenizer = byte_tokenizer();
    let model = model(Family::Llama, tokenizer.vocab_size(), json!({}));
    let place = tempfile::tempdir().expect("a temporary directory");
    let mut files = Vec::new();
    for name in ["one", "two"] {
        let out = place.path().join(name);
        hugging_face(&model, &tokenizer, Dtype::F32, &out).expect("exported");
        let bytes = std::fs::read(out.join("model.safetensors")).expect("a weight file");
        let (_, metadata) = SafeTensors::read_metadata(&bytes).expect("well-formed");
        let metadata = metadata.metadata().clone().unwrap_or_default();
        assert_eq!(metadata.into_iter().collect::<Vec<_>>(), [("format".into(), "pt".into())]);
        files.push(bytes);
    }
    assert!(files[0] == files[1], "equal weights give equal files");
}
