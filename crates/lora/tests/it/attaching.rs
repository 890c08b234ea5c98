//! Layers that get an adapter, its starting values, and frozen parameters.

use std::collections::BTreeSet;

use burn::module::Module;
use burn::tensor::Device;
use lora::{AdapterError, Error, Targets, adapter_names, attach, layout_of, train_adapters_only};
use model::{ScalarModel, named_parameters};

use super::support::{device, logits, names, settings, tiny_gpt2, tiny_llama, weights};

#[test]
fn a_fresh_adapter_changes_no_bit() {
    for (model, targets) in [
        (tiny_llama(&device()), names(&["q_proj", "mlp.down_proj"])),
        (tiny_gpt2(&device()), Targets::AllLinear),
    ] {
        let (before, weights_before) = (logits(&model), weights(&model));
        let adapted = attach(model, &settings(targets), 7).expect("attached");
        assert_eq!(logits(&adapted.model), before);
        let after = weights(&adapted.model);
        assert!(weights_before.iter().all(|(name, values)| after[name] == *values));
        assert_eq!(after.len(), weights_before.len() + 2 * adapted.layers.len());
    }
}

#[test]
fn factors_carry_pefts_names_in_module_order() {
    let adapted = attach(tiny_llama(&device()), &settings(names(&["v_proj", "q_proj"])), 7);
    let expected = [0, 1].map(|layer| {
        ["q_proj", "v_proj"].map(|name| {
            ["A", "B"].map(|f| format!("model.layers.{layer}.self_attn.{name}.lora_{f}.weight"))
        })
    });
    let expected: Vec<String> = expected.into_iter().flatten().flatten().collect();
    let adapted = adapted.expect("attached");
    assert_eq!(adapter_names(&adapted.model), expected);
    let gpt2 = attach(tiny_gpt2(&device()), &settings(names(&["c_attn"])), 7).expect("attached");
    assert_eq!(gpt2.layers, ["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"]);
    assert_eq!(adapter_names(&gpt2.model)[0], "transformer.h.0.attn.c_attn.lora_A.weight");
}

#[test]
fn starting_values_follow_from_seed_and_name() {
    let of = |targets: &[&str], seed| {
        weights(&attach(tiny_llama(&device()), &settings(names(targets)), seed).expect("ok").model)
    };
    let (few, many) = (of(&["q_proj"], 7), of(&["q_proj", "k_proj", "up_proj"], 7));
    let (a, b) = (
        "model.layers.0.self_attn.q_proj.lora_A.weight",
        "model.layers.0.self_attn.q_proj.lora_B.weight",
    );
    assert_eq!(few[a], many[a]);
    assert_ne!(few[a], of(&["q_proj"], 8)[a]);
    assert_ne!(few[a], few[&a.replace("layers.0", "layers.1")]);
    assert!(few[b].iter().all(|value| *value == 0.0));
    // Uniform within 1/sqrt(in): a third of the bound's square as variance.
    let bound = 1.0 / 32.0_f32.sqrt();
    assert!(few[a].iter().all(|value| value.abs() <= bound));
    let variance = few[a].iter().map(|x| x * x).sum::<f32>() / few[a].len() as f32;
    assert!((variance / (bound * bound / 3.0) - 1.0).abs() < 0.3, "{variance}");
}

#[test]
fn everything_else_is_frozen_and_stays_so() {
    let adapted = attach(tiny_llama(&device()), &settings(Targets::AllLinear), 7).expect("ok");
    let factors: BTreeSet<String> = adapter_names(&adapted.model).into_iter().collect();
    assert_eq!(factors.len(), 2 * 7 * 2);
    for parameter in named_parameters(&adapted.model) {
        assert_eq!(parameter.requires_grad, factors.contains(&parameter.name), "{parameter:?}");
    }
    assert!(named_parameters(&adapted.model.valid()).iter().all(|p| !p.requires_grad));
    // A model without autodiff has nothing to freeze.
    let plain = attach(tiny_llama(&Device::flex()), &settings(Targets::AllLinear), 7).expect("ok");
    assert_eq!(weights(&plain.model), weights(&adapted.model));
}

#[test]
fn a_head_that_the_base_lacks_is_trained() {
    let lm = tiny_llama(&device());
    let config = lm.config().clone();
    let scalar = ScalarModel::from_backbone(lm.backbone, &config, 5);
    let adapted = attach(scalar, &settings(names(&["q_proj"])), 7).expect("attached");
    let trained: Vec<String> = named_parameters(&adapted.model)
        .into_iter()
        .filter(|parameter| parameter.requires_grad)
        .map(|parameter| parameter.name)
        .collect();
    assert_eq!(trained.len(), 5);
    assert_eq!(trained[4], "score.weight");
    let layout = layout_of(&adapted.model, &settings(names(&["q_proj"]))).expect("a layout");
    assert_eq!(train_adapters_only(adapted.model, &layout).num_params(), adapted_size());
}

fn adapted_size() -> usize {
    let lm = tiny_llama(&device());
    let head = lm.lm_head.as_ref().map_or(0, Module::num_params);
    // Two adapters of rank 3 from 32 to 40, and the score's weight.
    lm.num_params() - head + 2 * 3 * (32 + 40) + 32
}

#[test]
fn targets_that_are_no_layers_are_refused() {
    let refused = |model, targets| match attach(model, &settings(targets), 7) {
        Ok(adapted) => panic!("attached: {:?}", adapted.layers),
        Err(error) => error,
    };
    let llama = || tiny_llama(&device());
    let pattern = |text: &str| Targets::Pattern(text.to_owned());
    let unknown = refused(llama(), names(&["q_proj", "c_attn"]));
    assert!(
        matches!(&unknown, Error::Config(AdapterError::NoSuchTarget { target, .. }) if target == "c_attn")
    );
    assert!(unknown.hint().is_some_and(|hint| hint.contains("`o_proj`")));
    assert!(matches!(
        refused(llama(), names(&["proj"])),
        Error::Config(AdapterError::NoSuchTarget { .. })
    ));
    assert!(matches!(
        refused(llama(), pattern("q_proj")),
        Error::Config(AdapterError::NoSuchTarget { .. })
    ));
    assert!(matches!(refused(llama(), pattern("(")), Error::Config(AdapterError::Pattern { .. })));
    assert!(matches!(
        refused(llama(), names(&["norm"])),
        Error::Config(AdapterError::NotALayer { .. })
    ));
    assert!(matches!(
        refused(llama(), pattern(".*")),
        Error::Config(AdapterError::NotALayer { .. })
    ));
    // A reward model has no output layer over the vocabulary.
    let lm = llama();
    let config = lm.config().clone();
    let scalar = ScalarModel::from_backbone(lm.backbone, &config, 5);
    assert!(matches!(
        attach(scalar, &settings(names(&["q_proj", "lm_head"])), 7),
        Err(Error::Config(AdapterError::NoSuchTarget { .. }))
    ));
    let once = attach(llama(), &settings(names(&["q_proj"])), 7).expect("attached").model;
    assert!(matches!(refused(once, names(&["k_proj", "q_proj"])), Error::Occupied { .. }));
}
