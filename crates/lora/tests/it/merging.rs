//! Adapters merged into the weights, and removed.

use lora::{Error, LoraConfig, Targets, attach, detach, load, merge};
use testkit::{Golden, Tolerance, assert_close, values};

use super::support::{
    adapter_cases, device, io_of, logits, settings, tiny_gpt2, tiny_llama, weights, with_waves,
};

#[test]
fn pefts_merged_weights() {
    for (dir, base) in adapter_cases() {
        let case = dir.display().to_string();
        let of_base = weights(&base);
        let (adapted, _) = load(base, &dir).expect("loaded");
        let (merged, _) = merge(adapted.model).expect("merged");
        // The newer files have only what differs from the base.
        let golden = Golden::open(&dir.join("merged.safetensors"));
        let got = weights(&merged);
        assert!(golden.names().iter().all(|name| got.contains_key(name)), "{case}");
        for (name, values) in &got {
            if golden.names().contains(name) {
                assert_close(name, values, &golden.f32(name), Tolerance::absolute(1e-6));
            } else {
                assert_eq!(*values, of_base[name], "{case}: {name}");
            }
        }
        let (tokens, expected) = io_of(&dir);
        let merged_logits = values(&merged.logits(merged.forward(&tokens).hidden_btd));
        assert_close(&case, &merged_logits, &expected, Tolerance::LOGITS);
    }
}

#[test]
fn a_bias_of_the_adapter_needs_one_of_the_layer() {
    let config = LoraConfig { lora_bias: true, ..settings(Targets::AllLinear) };
    let adapted = attach(tiny_llama(&device()), &config, 7).expect("attached");
    let error = merge(adapted.model).expect_err("no place for the bias");
    assert!(matches!(&error, Error::NoBias { layer } if layer.ends_with("q_proj")), "{error}");
}

#[test]
fn merged_and_removed() {
    for model in [tiny_llama(&device()), tiny_gpt2(&device())] {
        let base = weights(&model);
        let adapted = attach(model, &settings(Targets::AllLinear), 7).expect("attached");
        let model = with_waves(adapted.model);
        let (before, all) = (logits(&model), weights(&model));
        let (off, removed) = detach(model.clone());
        assert!(weights(&off).iter().all(|(name, values)| all[name] == *values));
        assert_eq!(weights(&off).len(), base.len());
        assert_eq!(removed.layers().count(), adapted.layers.len());

        let (merged, removed) = merge(model.clone()).expect("merged");
        assert!(removed.layers().eq(adapted.layers.iter()));
        assert!(weights(&merged).keys().eq(base.keys()));
        let close = Tolerance { absolute: 1e-5, of_largest: 1e-5 };
        assert_close("merged", &logits(&merged), &before, close);
        assert!(matches!(merge(merged.clone()), Err(Error::NoAdapter)));
        // The model that was merged from is untouched.
        assert_eq!(weights(&model), all);
    }
}
