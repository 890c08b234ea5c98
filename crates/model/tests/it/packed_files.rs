//! Directories whose weights bitsandbytes packed: read as they are, and refused by name where they are damaged. Their logits
//! are compared by evaluate.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use model::{CausalLm, Dtype, Error, load_causal_lm, load_causal_lm_packed, parameter_names};
use nn::Projection;
use testkit::{golden_dir, values};

fn golden() -> std::path::PathBuf {
    golden_dir("quant/llama-nf4_double")
}

fn copy(to: &Path) {
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden().join(file), to.join(file)).expect("copied");
    }
}

/// The golden directory with a text of its weight file replaced by another of the same length, everywhere.
fn with(old: &str, new: &str) -> model::Result<CausalLm> {
    assert_eq!(old.len(), new.len());
    let dir = tempfile::tempdir().expect("a directory");
    copy(dir.path());
    let path = dir.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).expect("the file");
    let found: Vec<usize> = (0..bytes.len() - old.len())
        .filter(|at| bytes[*at..].starts_with(old.as_bytes()))
        .collect();
    assert!(!found.is_empty(), "{old}");
    for at in found {
        bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
    }
    std::fs::write(&path, bytes).expect("written");
    load_causal_lm(dir.path(), &Device::flex())
}

#[test]
fn packed_weights_stay_packed() {
    let mut model = load_causal_lm(&golden(), &Device::flex()).expect("loaded");
    // Embedding, output layer and norms are dense.
    assert_eq!(parameter_names(&model).len(), 2 + 2 * 2 + 1);
    let base = load_causal_lm(&golden(), &Device::flex().autodiff()).expect("loaded");
    assert!(base.valid().write_safetensors(&mut Vec::new(), Dtype::F32).is_err());
    for (name, layer) in model.backbone.projections_mut() {
        let base: &dyn Projection = &*layer;
        assert!(base.base().weight.dense().is_none(), "{name}");
        let unpacked = values(&base.base().weight.val());
        layer.weight_mut().dequantise();
        assert_eq!(values(&layer.base().weight.dense().expect("dense")), unpacked);
    }
    model.write_safetensors(&mut Vec::new(), Dtype::F32).expect("written");
}

#[test]
fn damage_has_its_message() {
    let weight = "model.layers.0.self_attn.q_proj.weight";
    let error = |old: &str, new: &str| match with(old, new) {
        Ok(_) => panic!("{old} -> {new} was read"),
        Err(error) => error,
    };
    // Without its description it is a tensor of another dtype, with tensors left over.
    let state = format!("{weight}.quant_state.bits");
    let text = error(&state, &state.replace("quant", "tnauq")).to_string();
    assert!(text.contains(weight), "{text}");
    let absmax = format!("{weight}.nested_absmax");
    let lost = error(&absmax, &absmax.replace("nested", "detsen"));
    assert!(lost.to_string().contains("absmax"), "{lost}");
    for (old, new, reason) in [
        ("\"shape\": [64, 64]", "\"shape\": [64, 63]", "describes a weight [64, 63]"),
        ("\"blocksize\": 64", "\"blocksize\": 00", "is not a description"),
        ("\"nested_offset\"", "\"nested_tesffo\"", "does not describe its nested scales"),
        ("\"blocksize\": 64, \"dtype\"", "\"blocksize\": 32, \"dtype\"", "shape"),
    ] {
        let found = error(old, new);
        assert!(found.to_string().contains(reason), "{found}");
        assert!(found.hint().is_some());
    }
    assert!(matches!(error("\"shape\": [64, 64]", "\"shape\": [65, 64]"), Error::Packing { .. }));
}

/// Layers that are packed while they are read equal those that are packed afterwards.
#[test]
fn layers_are_packed_while_they_are_read() {
    let dir = golden_dir("models/llama");
    let kept = "model.layers.1.mlp.up_proj.weight";
    for format in [nn::PackedFormat::Nf4, nn::PackedFormat::Int8] {
        let mut read = load_causal_lm_packed(&dir, &Device::flex(), format, &|name| name == kept)
            .expect("a model");
        let mut after = load_causal_lm(&dir, &Device::flex()).expect("a model");
        let read = read.backbone.projections_mut();
        let after = after.backbone.projections_mut();
        assert_eq!((read.len(), after.len()), (14, 14));
        for ((name, read), (_, after)) in read.into_iter().zip(after) {
            let weight = after.weight_mut();
            let is_kept = format!("{name}.weight") == kept;
            if !is_kept {
                *weight = weight.pack(format);
            }
            assert_eq!(read.weight_mut().dense().is_some(), is_kept, "{name}");
            assert_eq!(values(&read.weight_mut().val()), values(&weight.val()), "{name}");
        }
    }
}
