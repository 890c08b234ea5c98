//! Adapters merged into the weights, and removed.

use lora::{Error, Targets, attach, detach, load, merge};
use model::CausalLm;
use testkit::{Golden, Tolerance, assert_close, values};

use super::support::{
    adapter_base, adapter_case, config_of, device, io_of, logits, settings, tiny_gpt2, tiny_llama,
    weights, with_waves,
};

#[test]
fn pefts_merged_weights() {
    for case in ["lora", "rslora", "regex"] {
        let dir = adapter_case(case);
        let (adapted, _) = load(adapter_base(&device()), &dir).expect("loaded");
        let n_layers = adapted.layers.len();
        let (merged, removed) = merge(adapted.model).expect("merged");
        assert_eq!(removed.layers().count(), n_layers);
        let golden = Golden::open(&dir.join("merged.safetensors"));
        let got = weights(&merged);
        assert!(got.keys().eq(golden.names().iter()), "{case}");
        for (name, values) in &got {
            assert_close(name, values, &golden.f32(name), Tolerance::absolute(1e-6));
        }
        let (tokens, expected) = io_of(&dir);
        let merged_logits = values(&merged.logits(merged.forward(&tokens).hidden_btd));
        assert_close("logits", &merged_logits, &expected, Tolerance::LOGITS);
    }
}

#[test]
fn merged_and_removed() {
    let decoders = testkit::tiny_decoders(96);
    let decoders = decoders.iter().map(|value| CausalLm::init(&config_of(value), 3, &device()));
    for model in [tiny_llama(&device()), tiny_gpt2(&device())].into_iter().chain(decoders) {
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
