//! Weight files of a directory: written weights read back, and each kind of damage has its message.

use std::path::Path;

use burn::tensor::Device;
use model::{CausalLm, Dtype, load_causal_lm, visit_tensors};
use tensor_file::SafetensorsWriter;
use testkit::{tiny_decoders, tiny_gpt2, tiny_llama};

use crate::support::config;

type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

fn tensors(model: &CausalLm) -> Tensors {
    let mut all = Vec::new();
    let push = |name: &str, shape: &[usize], values: &[f32]| {
        all.push((name.to_owned(), shape.to_vec(), values.to_vec()));
        Ok::<(), model::Error>(())
    };
    visit_tensors(model, push).expect("values");
    all
}

fn write(path: &Path, tensors: &Tensors, dtype: Dtype) {
    let mut bytes = Vec::new();
    let weights = tensors.iter().map(|(name, shape, _)| (name.clone(), shape.clone()));
    let mut writer =
        SafetensorsWriter::begin_weights(&mut bytes, weights, dtype).expect("a header");
    for (name, _, values) in tensors {
        writer.weights(name, values).expect("a tensor");
    }
    writer.finish().expect("the end");
    std::fs::write(path, bytes).expect("a file");
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn with_config(config: &serde_json::Value) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("config.json"), config.to_string()).expect("a file");
        Self(dir)
    }

    fn with(config: &serde_json::Value, tensors: &Tensors, dtype: Dtype) -> Self {
        let dir = Self::with_config(config);
        write(&dir.file("model.safetensors"), tensors, dtype);
        dir
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn load(&self) -> model::Result<CausalLm> {
        load_causal_lm(self.0.path(), &Device::flex())
    }

    /// The error without the directory's name.
    fn error(&self) -> String {
        let error = self.load().expect_err("an error");
        assert!(error.hint().is_some(), "{error}");
        error
            .to_string()
            .replace(&format!("{}/", self.0.path().display()), "")
            .replace(&self.0.path().display().to_string(), "DIR")
    }
}

fn tiny() -> (serde_json::Value, Tensors) {
    let value = tiny_llama(40);
    let model = CausalLm::init(&config(&value), 1, &Device::flex());
    (value, tensors(&model))
}

#[test]
fn written_weights_read_back() {
    let mut tied = tiny_llama(40);
    tied["tie_word_embeddings"] = true.into();
    let few = [tiny_llama(40), tied, tiny_gpt2(40, true), tiny_gpt2(40, false)];
    for value in few.into_iter().chain(tiny_decoders(40)) {
        let model = CausalLm::init(&config(&value), 1, &Device::flex());
        for dtype in Dtype::ALL {
            let dir = Dir::with_config(&value);
            let mut bytes = Vec::new();
            model.write_safetensors(&mut bytes, dtype).expect("bytes");
            std::fs::write(dir.file("model.safetensors"), &bytes).expect("a file");
            let read = tensors(&dir.load().expect("the model"));
            for ((name, shape, got), (_, _, want)) in read.iter().zip(tensors(&model)) {
                assert_eq!(got.len(), shape.iter().product::<usize>());
                for (got, want) in got.iter().zip(want) {
                    let want = match dtype {
                        Dtype::F32 => want,
                        Dtype::Bf16 => half::bf16::from_f32(want).to_f32(),
                        Dtype::F16 => half::f16::from_f32(want).to_f32(),
                    };
                    assert_eq!(*got, want, "{name}");
                }
            }
            let mut again = Vec::new();
            let reread = dir.load().expect("the model");
            reread.write_safetensors(&mut again, dtype).expect("bytes");
            assert_eq!(bytes, again, "import and export give the same bytes");
        }
    }
}

#[test]
fn a_missing_tensor_is_named() {
    let (value, mut all) = tiny();
    all.retain(|(name, _, _)| !name.contains("layers.1.mlp"));
    assert_eq!(
        Dir::with(&value, &all, Dtype::F32).error(),
        "model.safetensors: tensor missing: `model.layers.1.mlp.gate_proj.weight` and 2 more"
    );
}

#[test]
fn a_left_over_tensor_is_named() {
    let (value, mut all) = tiny();
    all.push(("model.layers.2.mlp.up_proj.weight".into(), vec![1], vec![0.0]));
    assert_eq!(
        Dir::with(&value, &all, Dtype::F32).error(),
        "model.safetensors: tensor that the model does not have: `model.layers.2.mlp.up_proj.weight`"
    );
}

#[test]
fn a_wrong_shape_is_named() {
    let (value, mut all) = tiny();
    let (_, shape, _) = &mut all[1];
    shape.reverse();
    assert_eq!(
        Dir::with(&value, &all, Dtype::F32).error(),
        "model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight` has shape [32, 40], not [40, 32]"
    );
}

#[test]
fn a_value_that_is_not_finite_is_named() {
    for (bad, word) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let (value, all) = tiny();
        let dir = Dir::with(&value, &all, Dtype::F32);
        let path = dir.file("model.safetensors");
        let mut bytes = std::fs::read(&path).expect("bytes");
        let end = bytes.len();
        // The last tensor is the head; its last value but one.
        bytes[end - 8..end - 4].copy_from_slice(&bad.to_le_bytes());
        std::fs::write(&path, bytes).expect("a file");
        assert_eq!(
            dir.error(),
            format!("model.safetensors: tensor `lm_head.weight` holds {word} at element 1278")
        );
    }
}

#[test]
fn a_file_cut_short_is_refused_at_every_length() {
    let (value, all) = tiny();
    let dir = Dir::with(&value, &all, Dtype::F32);
    let path = dir.file("model.safetensors");
    let bytes = std::fs::read(&path).expect("bytes");
    for length in [0, 7, 8, 100, 3000, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).expect("a file");
        let error = dir.error();
        assert!(error.starts_with("model.safetensors: "), "{length}: {error}");
    }
    std::fs::write(&path, &bytes[..bytes.len() - 1]).expect("a file");
    assert_eq!(
        dir.error(),
        "model.safetensors: the file ends 1 bytes before tensor `lm_head.weight` does"
    );
    std::fs::write(&path, [&bytes[..], &[0]].concat()).expect("a file");
    assert_eq!(dir.error(), "model.safetensors: 1 bytes at the end belong to no tensor");
}

#[test]
fn a_dtype_that_is_not_read_is_named() {
    let (value, all) = tiny();
    let dir = Dir::with(&value, &all, Dtype::F32);
    let path = dir.file("model.safetensors");
    let bytes = std::fs::read(&path).expect("bytes");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header = String::from_utf8(bytes[8..8 + length].to_vec()).expect("text");
    let header = header.replacen("\"F32\"", "\"I32\"", 1);
    let bytes = [&bytes[..8], header.as_bytes(), &bytes[8 + length..]].concat();
    std::fs::write(&path, bytes).expect("a file");
    assert_eq!(
        dir.error(),
        "model.safetensors: tensor `model.embed_tokens.weight` is stored as `I32`, not F32, BF16 or F16"
    );
}

#[test]
fn a_tied_head_in_the_file_must_equal_the_embedding() {
    let mut value = tiny_llama(40);
    value["tie_word_embeddings"] = true.into();
    let model = CausalLm::init(&config(&value), 1, &Device::flex());
    let mut all = tensors(&model);
    let head = ("lm_head.weight".to_owned(), all[0].1.clone(), all[0].2.clone());
    all.push(head);
    assert_eq!(
        tensors(&Dir::with(&value, &all, Dtype::F32).load().expect("the model")),
        tensors(&model)
    );
    all.last_mut().expect("the head").2[77] += 1.0;
    assert_eq!(
        Dir::with(&value, &all, Dtype::F32).error(),
        "model.safetensors: tensor `lm_head.weight` differs from the embedding although config.json ties the two"
    );
}

#[test]
fn known_buffers_are_ignored() {
    let (value, mut all) = tiny();
    all.push(("model.layers.0.self_attn.rotary_emb.inv_freq".into(), vec![5], vec![0.5; 5]));
    assert!(Dir::with(&value, &all, Dtype::F32).load().is_ok());

    let value = tiny_gpt2(40, true);
    let model = CausalLm::init(&config(&value), 1, &Device::flex());
    let mut all = tensors(&model);
    all.push(("transformer.h.0.attn.bias".into(), vec![1, 1, 4, 4], vec![1.0; 16]));
    all.push(("transformer.h.1.attn.masked_bias".into(), vec![1], vec![-1e4]));
    assert_eq!(
        tensors(&Dir::with(&value, &all, Dtype::F32).load().expect("the model")),
        tensors(&model)
    );
}

#[test]
fn files_of_a_bare_backbone_omit_the_prefix() {
    let value = tiny_gpt2(40, true);
    let model = CausalLm::init(&config(&value), 1, &Device::flex());
    let bare = tensors(&model)
        .into_iter()
        .map(|(name, shape, values)| (name.replacen("transformer.", "", 1), shape, values))
        .collect();
    let read = Dir::with(&value, &bare, Dtype::F32).load().expect("the model");
    assert_eq!(tensors(&read), tensors(&model));
}

#[test]
fn biases_of_a_model_without_them_must_be_zero() {
    let value = tiny_gpt2(40, false);
    let model = CausalLm::init(&config(&value), 1, &Device::flex());
    let mut all = tensors(&model);
    assert!(Dir::with(&value, &all, Dtype::F32).load().is_ok(), "they may be absent");
    all.push(("transformer.ln_f.bias".into(), vec![30], vec![0.0; 30]));
    assert!(Dir::with(&value, &all, Dtype::F32).load().is_ok());
    all.last_mut().expect("a bias").2[3] = 0.5;
    assert_eq!(
        Dir::with(&value, &all, Dtype::F32).error(),
        "model.safetensors: tensor `transformer.ln_f.bias` is not zero although config.json says `bias` = false"
    );
}

fn index(entries: &[(&str, &str)]) -> String {
    let map: serde_json::Map<String, serde_json::Value> =
        entries.iter().map(|(name, file)| ((*name).to_owned(), (*file).into())).collect();
    serde_json::json!({ "metadata": {}, "weight_map": map }).to_string()
}

#[test]
fn shards() {
    let (value, all) = tiny();
    let dir = Dir::with_config(&value);
    let (first, second) = all.split_at(7);
    let (first, second) = (first.to_vec(), second.to_vec());
    write(&dir.file("a.safetensors"), &first, Dtype::Bf16);
    write(&dir.file("b.safetensors"), &second, Dtype::F32);
    let mut entries: Vec<(&str, &str)> = Vec::new();
    entries.extend(first.iter().map(|(name, _, _)| (name.as_str(), "a.safetensors")));
    entries.extend(second.iter().map(|(name, _, _)| (name.as_str(), "b.safetensors")));
    let put = |text: &str| {
        std::fs::write(dir.file("model.safetensors.index.json"), text).expect("a file");
    };
    put(&index(&entries));
    assert!(dir.load().is_ok());

    let moved = (entries[0].0, "b.safetensors");
    put(&index(&[&entries[1..], &[moved]].concat()));
    assert_eq!(
        dir.error(),
        "a.safetensors: tensor `model.embed_tokens.weight` is not listed in model.safetensors.index.json"
    );
    put(&index(&[&entries[..], &[("x", "b.safetensors")]].concat()));
    assert_eq!(dir.error(), "b.safetensors: tensor missing: `x`");
    put(&index(&[&entries[..], &[("x", "c.safetensors")]].concat()));
    assert_eq!(
        dir.error(),
        "model.safetensors.index.json: names a file that does not exist: `c.safetensors`"
    );
    for name in ["../a.safetensors", "/etc/passwd", "x/a.safetensors", "..", ""] {
        put(&index(&[&entries[..], &[("x", name)]].concat()));
        let message = format!("model.safetensors.index.json: not a bare file name: `{name}`");
        assert_eq!(dir.error(), message);
    }
    for (text, message) in [
        ("{", "model.safetensors.index.json: not valid JSON"),
        ("{}", "model.safetensors.index.json: missing key `weight_map`"),
        (r#"{"weight_map":{}}"#, "model.safetensors.index.json: `weight_map` is empty"),
        (r#"{"weight_map":{"a":1}}"#, "`weight_map` names no file for tensor `a`"),
    ] {
        put(text);
        assert!(dir.error().contains(message), "{}", dir.error());
    }
}

#[test]
fn directories_without_weights() {
    let (value, _) = tiny();
    let dir = Dir::with_config(&value);
    let message = "DIR: no model.safetensors and no model.safetensors.index.json";
    assert_eq!(dir.error(), message);
    std::fs::write(dir.file("pytorch_model.bin"), "x").expect("a file");
    assert_eq!(dir.error(), message);
    let hint = dir.load().expect_err("an error").hint().expect("a hint");
    assert!(hint.contains("safe_serialization"), "{hint}");
}

#[test]
fn a_directory_in_place_of_a_file() {
    let (value, _) = tiny();
    let dir = Dir::with_config(&value);
    std::fs::create_dir(dir.file("model.safetensors")).expect("a directory");
    assert_eq!(dir.error(), "model.safetensors: not a regular file");
}

/// Rounding each tensor as it is read gives the model that rounding the whole gives.
#[test]
fn a_model_in_bf16_is_that_of_rounding_after_loading() {
    let keeps = |name: &str| name.contains("layers.0.self_attn.q_proj");
    for dir in crate::support::golden_models() {
        let device = Device::flex();
        let whole = load_causal_lm(&dir, &device).expect("readable");
        let rounded = model::store_in_bf16(whole.clone(), &keeps);
        let read = model::load_causal_lm_in_bf16(&dir, &device, &keeps).expect("readable");
        assert_eq!(tensors(&read), tensors(&rounded), "{}", dir.display());
        assert_ne!(tensors(&read), tensors(&whole), "{}", dir.display());
        assert_eq!(read.head_weight().dtype(), rounded.head_weight().dtype());
        // Trained parameters stay f32 and are not rounded on an autodiff device.
        let trained = model::load_causal_lm_in_bf16(&dir, &device.clone().autodiff(), &keeps);
        assert_eq!(tensors(&trained.expect("readable")), tensors(&whole));
        let values = |of: &Tensors| {
            of.iter().find(|(name, _, _)| keeps(name)).map(|(_, _, values)| values.clone())
        };
        assert_eq!(values(&tensors(&read)), values(&tensors(&whole)));
    }
}
