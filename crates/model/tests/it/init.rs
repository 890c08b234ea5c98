//! Names, shapes and starting values against arch's table of parameters.

use arch::{Init, ParamSpec};
use burn::tensor::Device;
use model::{CausalLm, ScalarModel, named_parameters, visit_tensors};
use testkit::{tiny_decoders, tiny_gpt2, tiny_llama};

use crate::support::config;

fn configs() -> Vec<arch::ModelConfig> {
    let mut tied = tiny_llama(40);
    tied["tie_word_embeddings"] = true.into();
    let mut biased = tiny_llama(40);
    biased["attention_bias"] = true.into();
    biased["mlp_bias"] = true.into();
    let mut untied = tiny_gpt2(40, true);
    untied["tie_word_embeddings"] = false.into();
    let few = [tiny_llama(40), tied, biased, tiny_gpt2(40, true), tiny_gpt2(40, false), untied];
    few.iter().chain(&tiny_decoders(40)).map(config).collect()
}

fn table(specs: Vec<ParamSpec>) -> Vec<(String, Vec<usize>)> {
    specs.into_iter().map(|spec| (spec.name, spec.shape)).collect()
}

#[test]
fn names_and_shapes_are_those_of_arch_in_module_order() {
    for config in configs() {
        let model = CausalLm::init(&config, 1, &Device::flex());
        let names = |found: Vec<model::NamedParameter>| -> Vec<(String, Vec<usize>)> {
            found.into_iter().map(|parameter| (parameter.name, parameter.shape)).collect()
        };
        assert_eq!(names(named_parameters(&model)), table(config.parameters()));
        let scored = ScalarModel::from_backbone(model.backbone, &config, 1);
        assert_eq!(
            names(named_parameters(&scored)),
            table(config.sequence_classifier_parameters())
        );
    }
}

#[test]
fn every_parameter_is_trained_on_an_autodiff_device_only() {
    let config = &configs()[0];
    let trained = |device: &Device| {
        let model = CausalLm::init(config, 1, device);
        named_parameters(&model).iter().all(|parameter| parameter.requires_grad)
    };
    assert!(trained(&Device::flex().autodiff()));
    assert!(!trained(&Device::flex()));
}

#[test]
fn starting_values_follow_the_table() {
    for config in configs() {
        let model = CausalLm::init(&config, 7, &Device::flex());
        let mut specs = config.parameters().into_iter();
        let mut first_values = std::collections::BTreeSet::new();
        let check = |name: &str, _: &[usize], values: &[f32]| {
            let spec = specs.next().expect("a row of the table");
            match spec.init {
                Init::Zeros => assert!(values.iter().all(|value| *value == 0.0), "{name}"),
                Init::Ones => assert!(values.iter().all(|value| *value == 1.0), "{name}"),
                Init::Normal { std } => {
                    let n = values.len() as f64;
                    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / n;
                    let square: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
                    let got = (square / n).sqrt();
                    // Six standard errors.
                    assert!(mean.abs() < 6.0 * std / n.sqrt(), "{name}: mean {mean}");
                    assert!((got / std - 1.0).abs() < 6.0 / (2.0 * n).sqrt(), "{name}: {got}");
                    assert!(first_values.insert(values[0].to_bits()), "{name} repeats another");
                }
            }
            Ok::<(), model::Error>(())
        };
        visit_tensors(&model, check).expect("values");
    }
}

#[test]
fn starting_values_are_a_function_of_seed_and_name() {
    let collect = |config: &arch::ModelConfig, seed| {
        let model = CausalLm::init(config, seed, &Device::flex());
        let mut all = std::collections::BTreeMap::new();
        let insert = |name: &str, _: &[usize], values: &[f32]| {
            all.insert(name.to_owned(), values.to_vec());
            Ok::<(), model::Error>(())
        };
        visit_tensors(&model, insert).expect("values");
        all
    };
    let configs = configs();
    let (plain, again) = (collect(&configs[0], 5), collect(&configs[0], 5));
    assert_eq!(plain, again);
    let (other, biased) = (collect(&configs[0], 6), collect(&configs[2], 5));
    let name = "model.layers.1.mlp.up_proj.weight";
    assert_ne!(plain[name], other[name]);
    assert_eq!(plain[name], biased[name], "other parameters do not shift this one's values");
}

#[test]
fn a_new_model_predicts_evenly() {
    for config in configs() {
        let device = Device::flex();
        let model = CausalLm::init(&config, 2, &device);
        let ids: Vec<u32> = (0..30).map(|i| i * 7 % 40).collect();
        let tokens = nn::TokenBatch::of_rows(&ids, 1, &device);
        let targets: Vec<i32> = ids.iter().map(|id| (*id as i32 + 3) % 40).collect();
        let hidden_nd = model.forward(&tokens).hidden_nd();
        let targets = crate::support::targets_tensor(&targets);
        let sum = loss::cross_entropy(hidden_nd, model.head_weight(), targets, 30);
        let mean = sum.value() / 30.0;
        assert!((mean - 40.0_f64.ln()).abs() < 0.2, "{mean}");
    }
}
