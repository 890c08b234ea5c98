//! Tiny models, golden folders, and everything of a model by name.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};

use arch::{ModelConfig, TrainableTokens};
use burn::module::Module;
use burn::tensor::Device;
use lora::{BiasTraining, LoraConfig, LoraInit, Targets, layout_of};
use model::{Adaptable, CausalLm, load_causal_lm};
use nn::TokenBatch;
use serde_json::Value;
use testkit::{Golden, golden_dir, values};

pub(crate) fn device() -> Device {
    Device::flex().autodiff()
}

pub(crate) fn config_of(value: &Value) -> ModelConfig {
    ModelConfig::from_json(value, Path::new("config.json")).expect("a config")
}

pub(crate) fn tiny_llama(device: &Device) -> CausalLm {
    CausalLm::init(&config_of(&testkit::tiny_llama(96)), 3, device)
}

pub(crate) fn tiny_gpt2(device: &Device) -> CausalLm {
    CausalLm::init(&config_of(&testkit::tiny_gpt2(96, true)), 3, device)
}

pub(crate) fn names(targets: &[&str]) -> Targets {
    Targets::Names(targets.iter().map(|target| (*target).to_owned()).collect())
}

pub(crate) fn settings(targets: Targets) -> LoraConfig {
    LoraConfig { rank: 3, alpha: 6.0, targets, ..LoraConfig::default() }
}

/// A configuration for each variant of PEFT's LoRA, with a model that it fits.
pub(crate) fn variants() -> Vec<(LoraConfig, CausalLm)> {
    let (llama, gpt2) = (|| tiny_llama(&device()), || tiny_gpt2(&device()));
    let all = || settings(Targets::AllLinear);
    let of = |targets: &[&str]| settings(names(targets));
    let text = |text: &str| text.to_owned();
    let tokens = |module: Option<&str>, ids: &[u32]| TrainableTokens {
        module: module.map(str::to_owned),
        ids: ids.to_vec(),
    };
    vec![
        (LoraConfig { use_dora: true, ..all() }, llama()),
        (LoraConfig { use_dora: true, rslora: true, ..all() }, gpt2()),
        (LoraConfig { init: LoraInit::Pissa, ..all() }, llama()),
        (LoraConfig { init: LoraInit::Pissa, use_dora: true, ..all() }, gpt2()),
        (LoraConfig { init: LoraInit::Olora, ..all() }, gpt2()),
        (LoraConfig { bias: BiasTraining::All, ..of(&["c_attn"]) }, gpt2()),
        (LoraConfig { bias: BiasTraining::LoraOnly, ..of(&["c_fc"]) }, gpt2()),
        (LoraConfig { lora_bias: true, ..all() }, gpt2()),
        (
            LoraConfig {
                rank_pattern: vec![(text("q_proj"), 2), (text(r"layers\.1\..*"), 5)],
                alpha_pattern: vec![(text("v_proj"), 1.5)],
                ..all()
            },
            llama(),
        ),
        (LoraConfig { layers_to_transform: Some(vec![1]), ..of(&["q_proj"]) }, llama()),
        (LoraConfig { exclude_modules: Some(names(&["o_proj", "mlp.up_proj"])), ..all() }, llama()),
        (
            LoraConfig { modules_to_save: vec![text("embed_tokens"), text("norm")], ..all() },
            llama(),
        ),
        // Tied: the saved embedding is the input side alone.
        (LoraConfig { modules_to_save: vec![text("wte")], ..of(&["c_attn"]) }, gpt2()),
        (of(&["embed_tokens", "lm_head", "q_proj"]), llama()),
        (LoraConfig { use_dora: true, ..of(&["embed_tokens", "lm_head"]) }, llama()),
        (of(&["wte", "c_attn"]), gpt2()),
        (of(&["lm_head", "c_attn"]), gpt2()),
        (LoraConfig { trainable_tokens: vec![tokens(None, &[7, 2])], ..all() }, llama()),
        (LoraConfig { trainable_tokens: vec![tokens(Some("wte"), &[7, 2, 31])], ..all() }, gpt2()),
        (
            LoraConfig {
                trainable_tokens: vec![
                    tokens(Some("embed_tokens"), &[7]),
                    tokens(Some("lm_head"), &[7, 31]),
                ],
                use_dora: true,
                bias: BiasTraining::All,
                ..of(&["q_proj", "down_proj"])
            },
            llama(),
        ),
    ]
}

pub(crate) fn some_tokens(device: &Device) -> TokenBatch {
    let ids: Vec<u32> = (0..14).map(|i| i * 31 % 96).collect();
    TokenBatch::of_rows(&ids, 2, device)
}

pub(crate) fn logits(model: &CausalLm) -> Vec<f32> {
    let tokens = some_tokens(&Device::flex());
    // A tracked forward pass without a backward pass would leave its graph behind.
    let model = if model.backbone.is_autodiff() { model.valid() } else { model.clone() };
    values(&model.logits(model.forward(&tokens).hidden_btd))
}

/// Every parameter's values by name.
pub(crate) fn weights<M: Module>(model: &M) -> BTreeMap<String, Vec<f32>> {
    let mut all = BTreeMap::new();
    let seen: Result<(), Infallible> = model::visit_tensors(model, |name, _, values| {
        all.insert(name.to_owned(), values.to_vec());
        Ok(())
    });
    assert!(seen.is_ok());
    all
}

/// The model with other numbers in every parameter, so that its adapters do something.
pub(crate) fn with_waves<M: Adaptable>(model: M) -> M {
    struct Waves;
    impl model::ParameterSource for Waves {
        fn values(&mut self, name: &str, shape: &[usize]) -> model::Result<Vec<f32>> {
            let n: usize = shape.iter().product();
            let phase = name.len() as f32;
            Ok((0..n).map(|i| (i as f32 * 0.7 + phase).sin() * 0.2).collect())
        }
    }
    model::load_state_dict(model, &mut Waves).expect("values")
}

/// The model with other values in what an adapter trains, so that the adapter does something.
pub(crate) fn with_trained_waves(model: CausalLm, config: &LoraConfig) -> CausalLm {
    let layout = layout_of(&model, config).expect("a layout");
    let mut values = BTreeMap::new();
    for (name, shape) in layout.trained() {
        let n: usize = shape.iter().product();
        let phase = name.len() as f32;
        let start = if name.ends_with("magnitude_vector") { 1.0 } else { 0.0 };
        let wave = |i: usize| start + (i as f32 * 0.7 + phase).sin() * 0.2;
        values.insert(name, (0..n).map(wave).collect());
    }
    model::replace_parameters(model, &mut values)
}

/// The directory of a PEFT reference adapter.
pub(crate) fn adapter_case(case: &str) -> PathBuf {
    golden_dir(&format!("adapters/{case}"))
}

pub(crate) fn adapter_base(device: &Device) -> CausalLm {
    load_causal_lm(&golden_dir("adapters/base"), device).expect("the base")
}

/// PEFT's reference adapters: their directories and base models.
pub(crate) fn adapter_cases() -> Vec<(PathBuf, CausalLm)> {
    let first = ["lora", "rslora", "regex", "dora", "patterns"];
    let first = first.map(|case| (adapter_case(case), adapter_base(&device())));
    let second = [
        ("gpt2_conv1d_dora", "base-gpt2"),
        ("bias_all", "base-llama-mlp-bias"),
        ("lora_bias", "base-llama-mlp-bias"),
        ("embedding", "base-llama"),
        ("tokens_tied", "base-llama-tied-rope3"),
    ];
    let second = second.map(|(case, base)| {
        let base = load_causal_lm(&golden_dir(&format!("adapters2/{base}")), &device());
        (golden_dir(&format!("adapters2/{case}")), base.expect("the base"))
    });
    first.into_iter().chain(second).collect()
}

/// (tokens, logits) of a case.
pub(crate) fn io_of(dir: &Path) -> (TokenBatch, Vec<f32>) {
    let io = Golden::open(&dir.join("io.safetensors"));
    let rows = io.shape("input_ids")[0];
    (TokenBatch::of_rows(&io.ids("input_ids"), rows, &Device::flex()), io.f32("logits"))
}
