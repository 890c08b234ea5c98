//! Limits of llama.cpp by architecture: windows, widths of heads, and heads that are or are not the embedding.

use gguf::{Array, FileType, GgufFile, ModelExport, ModelFile, Value as Metadata};
use serde_json::{Value, json};

use crate::models::{Model, source};
use crate::support::{Vectors, file, golden};

fn open(name: &str) -> Model {
    Model::open(&golden().join("models").join(name))
}

/// The error of writing a model, without what all errors of this kind begin with.
fn refused(model: &Model, changes: &Value) -> String {
    let mut config = model.config.clone();
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let tokenizer = model.tokenizer();
    let export =
        ModelExport::new(&config, &source(&tokenizer), &model.shapes, FileType::F32, "test");
    let error = export.unwrap_err().to_string();
    error.strip_prefix("cannot be written as GGUF: ").unwrap_or(&error).to_owned()
}

/// EXAONE 4 with this many layers, each with the weights of the reference model's first.
fn exaone4(n_layers: usize, window: &Value) -> (Model, Vec<u8>) {
    let mut model = open("exaone4");
    let kinds = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"];
    let layer_types: Vec<&str> = (0..n_layers)
        .map(|layer| if window.is_null() { kinds[3] } else { kinds[layer % 4] })
        .collect();
    let changes = json!({
        "num_hidden_layers": n_layers, "sliding_window": window, "layer_types": layer_types,
        "sliding_window_pattern": Value::Null,
    });
    model.config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let first = "model.layers.0.";
    let (layer, others): (Vec<_>, Vec<_>) =
        model.shapes.iter().cloned().partition(|(name, _)| name.starts_with(first));
    let is_layer = |name: &str| name.starts_with("model.layers.");
    let mut shapes: Vec<_> = others.into_iter().filter(|(name, _)| !is_layer(name)).collect();
    for layer_idx in 0..n_layers {
        let name = |name: &str| name.replace(first, &format!("model.layers.{layer_idx}."));
        shapes.extend(layer.iter().map(|(old, shape)| (name(old), shape.clone())));
    }
    let tokenizer = model.tokenizer();
    let export =
        ModelExport::new(&model.config, &source(&tokenizer), &shapes, FileType::F32, "test");
    let mut bytes = Vec::new();
    let export = export.unwrap();
    let mut writer = export.begin(&mut bytes).unwrap();
    for (name, _) in &shapes {
        writer.tensor(name, &weights(&model.vectors, name)).unwrap();
    }
    writer.finish().unwrap();
    model.shapes = shapes;
    model.shapes.sort();
    (model, bytes)
}

/// The weights of any layer are those of the first.
fn weights(vectors: &Vectors, name: &str) -> Vec<f32> {
    let Some((layer, rest)) =
        name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'))
    else {
        return vectors.floats(name);
    };
    assert!(layer.parse::<usize>().is_ok(), "{name}");
    vectors.floats(&format!("model.layers.0.{rest}"))
}

#[test]
fn olmo3_has_a_window_and_the_layers_that_it_applies_to() {
    let model = open("olmo3");
    let (_dir, path) = model.write(FileType::F32);
    let written = GgufFile::open(&path).unwrap();
    let metadata = written.metadata();
    assert_eq!(metadata.text("general.architecture").unwrap(), Some("olmo2"));
    assert_eq!(metadata.uint("olmo2.attention.sliding_window").unwrap(), Some(5));
    let pattern = metadata.get("olmo2.attention.sliding_window_pattern");
    assert_eq!(pattern, Some(&Metadata::Array(Array::Bool(vec![true, false]))));
    // The context does not end where the window does.
    assert_eq!(metadata.uint("olmo2.context_length").unwrap(), Some(128));
    let (_dir, path) = open("olmo2").write(FileType::F32);
    let read = ModelFile::open(&path).unwrap();
    assert_eq!(read.config()["model_type"], "olmo2");
    assert!(read.config()["sliding_window"].is_null());

    let sections = |sliding: Value| {
        let full = json!({ "rope_type": "default", "rope_theta": 500_000.0 });
        json!({ "rope_parameters": { "full_attention": full, "sliding_attention": sliding } })
    };
    assert_eq!(
        refused(&model, &sections(json!({ "rope_type": "default", "rope_theta": 10_000.0 }))),
        "`rope_theta` of layers with a window: llama.cpp has the same in all layers"
    );
    assert_eq!(
        refused(
            &model,
            &sections(json!({ "rope_type": "linear", "factor": 2.0, "rope_theta": 500_000.0 }))
        ),
        "RoPE scaling `linear` of layers with a window has no counterpart in llama.cpp"
    );
}

#[test]
fn exaone4_has_windows_in_64_layers_and_in_no_others() {
    for (n_layers, window) in [(64, json!(5)), (3, Value::Null)] {
        let (model, bytes) = exaone4(n_layers, &window);
        let (_dir, path) = file(&bytes);
        let read = ModelFile::open(&path).unwrap();
        for key in ["model_type", "sliding_window", "layer_types", "num_key_value_heads"] {
            assert_eq!(read.config()[key], model.config[key], "{n_layers} layers: {key}");
        }
        assert!(read.config().get("attention_bias").is_none(), "no key of this family");
        let names: Vec<(String, Vec<usize>)> =
            read.tensors().map(|(name, shape)| (name.to_owned(), shape.to_vec())).collect();
        assert_eq!(names, model.shapes);
        for (name, _) in &names {
            assert_eq!(read.read(name).unwrap(), weights(&model.vectors, name), "{name}");
        }
    }
    let model = open("exaone4");
    assert_eq!(
        refused(&model, &json!({})),
        "`sliding_window` = 5: in this architecture, llama.cpp computes windows in models of 64 layers, and in no others"
    );
    assert_eq!(
        refused(&model, &json!({ "num_hidden_layers": 64, "sliding_window": null })),
        "`sliding_window` = null: in this architecture, llama.cpp computes windows in models of 64 layers, and in no others"
    );
}

#[test]
fn a_head_that_is_the_embedding_is_written_where_llama_cpp_needs_it() {
    for name in ["olmo2", "olmo3", "qwen2_moe", "llama"] {
        let mut model = open(name);
        model.config["tie_word_embeddings"] = json!(true);
        model.shapes.retain(|(name, _)| name != "lm_head.weight");
        for packed in [FileType::Q8_0, FileType::Q4_0, FileType::Q4KM] {
            let (_dir, path) = model.write(packed);
            let read = ModelFile::open(&path).unwrap();
            assert_eq!(read.config()["tie_word_embeddings"], true, "{name} {packed:?}");
            assert!(read.tensors().all(|(name, _)| name != "lm_head.weight"), "{name} {packed:?}");
        }
        let (_dir, path) = model.write(FileType::F32);
        let written = GgufFile::open(&path).unwrap();
        let has_head = written.tensor("output.weight").is_some();
        assert_eq!(has_head, name != "llama", "{name}");
        let read = ModelFile::open(&path).unwrap();
        assert_eq!(read.config()["tie_word_embeddings"], true, "{name}");
        assert!(read.tensors().all(|(name, _)| name != "lm_head.weight"), "{name}");
        let embedding = "model.embed_tokens.weight";
        assert_eq!(read.read(embedding).unwrap(), model.vectors.floats(embedding), "{name}");
    }
    let mut gemma2 = open("gemma2");
    let head =
        gemma2.shapes.iter().find(|(name, _)| name.contains("embed_tokens")).unwrap().1.clone();
    gemma2.shapes.push(("lm_head.weight".to_owned(), head));
    assert_eq!(
        refused(&gemma2, &json!({ "tie_word_embeddings": false })),
        "`tie_word_embeddings` = false: llama.cpp takes the embedding as the head in this architecture"
    );
}

#[test]
fn heads_of_other_widths_are_refused_where_llama_cpp_derives_them() {
    for name in ["olmo2", "olmo3", "qwen2_moe", "phi3-longrope"] {
        let model = open(name);
        assert_eq!(
            refused(&model, &json!({ "head_dim": 12 })),
            "`head_dim` = 12: llama.cpp has heads of `hidden_size` / `num_attention_heads` in this architecture",
            "{name}"
        );
    }
}
