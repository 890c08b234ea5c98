//! Adapters merged into the weights, and removed.

use burn::tensor::Device;
use lora::{Error, LoraConfig, Targets, attach, detach, load, merge};
use testkit::{Golden, Tolerance, assert_close, values};

use super::support::{
    adapter_cases, device, io_of, logits, names, settings, tiny_gpt2, tiny_llama, weights,
    with_trained_waves, with_waves,
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

/// The logits of a sum are those of the base model with all updates in its weights.
#[test]
fn a_weighted_sum_of_adapters() {
    let base = tiny_llama(&Device::flex());
    let configs = [
        settings(names(&["q_proj", "up_proj"])),
        LoraConfig { rank: 5, rslora: true, ..settings(names(&["q_proj", "o_proj"])) },
    ];
    let models: Vec<_> = configs
        .iter()
        .map(|config| {
            with_trained_waves(attach(base.clone(), config, 7).expect("one").model, config)
        })
        .collect();
    let weights_of: [f64; 2] = [0.7, -0.4];
    let mut expected = weights(&base);
    for (model, weight) in models.iter().zip(weights_of) {
        for (name, values) in weights(&merge(model.clone()).expect("merged").0) {
            let start = weights(&base)[&name].clone();
            let sum = expected.get_mut(&name).expect("the same names");
            for ((sum, merged), start) in sum.iter_mut().zip(values).zip(start) {
                *sum += weight as f32 * (merged - start);
            }
        }
    }
    let (sum, config) = lora::weighted_sum(models, &configs, &weights_of).expect("a sum");
    assert_eq!((config.rank, config.rank_pattern.len()), (8, 4));
    let out = tempfile::tempdir().expect("a directory");
    let dir = out.path().join("sum");
    let mut writer = fsio::DirWriter::begin(&dir).expect("a directory");
    lora::export(&sum, &config, None, arch::Dtype::F32, &mut writer).expect("exported");
    writer.commit(serde_json::Value::Null).expect("committed");
    let (read, _) = load(base, &dir).expect("loaded");
    for (name, values) in weights(&merge(read.model).expect("merged").0) {
        assert_close(&name, &values, &expected[&name], Tolerance::absolute(1e-5));
    }
    let dora = LoraConfig { use_dora: true, ..settings(Targets::AllLinear) };
    let adapted = attach(tiny_llama(&device()), &dora, 7).expect("attached").model;
    let error = lora::weighted_sum(vec![adapted], &[dora], &[1.0]).expect_err("no sum");
    assert!(matches!(error, Error::NoSum { feature: "use_dora" }));
}
