//! Windows per layer and norms of heads, which not every family has.

use std::collections::BTreeMap;

use arch::{AttentionScale, DecoderConfig, ModelConfig, QkNorm};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use nn::{Input, KvCache, TokenBatch};
use serde_json::json;
use testkit::{Tolerance, assert_close, values};

use super::RopeDecoder;
use crate::build::{Builder, ParameterSource};
use crate::decoder::Decoder;
use crate::{Result, parameter_names};

/// Waves with a phase of the name's own.
struct Waves;

impl ParameterSource for Waves {
    fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let phase: u32 = name.bytes().map(u32::from).sum();
        let n: usize = shape.iter().product();
        let centre = if name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        Ok((0..n).map(|i| centre + (i as f32 * 0.7 + phase as f32).sin() * 0.4).collect())
    }
}

fn config(windows: &[Option<usize>], qk_norm: QkNorm) -> DecoderConfig {
    let keys = json!({
        "model_type": "llama", "vocab_size": 40, "hidden_size": 12, "intermediate_size": 20,
        "num_hidden_layers": windows.len(), "num_attention_heads": 4, "num_key_value_heads": 2,
        // Heads whose width is not hidden size / number of heads.
        "head_dim": 8, "rms_norm_eps": 1e-6, "max_position_embeddings": 64, "rope_theta": 1e4,
    });
    let config = ModelConfig::from_json(&keys, "test".as_ref()).expect("a good config");
    let ModelConfig::Decoder(mut config) = config else { panic!("a decoder") };
    for (layer, window) in config.layers.iter_mut().zip(windows) {
        layer.window = *window;
    }
    DecoderConfig { qk_norm, attention_scale: AttentionScale::Factor(0.35), ..config }
}

fn decoder(config: &DecoderConfig, device: &Device) -> RopeDecoder {
    RopeDecoder::build(config, &mut Builder::new(&mut Waves, device)).expect("waves")
}

fn tokens(ids: &[u32]) -> TokenBatch {
    TokenBatch::of_rows(ids, 1, &Device::flex())
}

fn hidden(model: &RopeDecoder, ids: &[u32]) -> Vec<f32> {
    values(&model.run(&Input::from(&tokens(ids)), None, &mut |_| ()).hidden_btd)
}

/// The positions whose hidden states change with the first token.
fn reach(model: &RopeDecoder) -> Vec<usize> {
    let mut ids: Vec<u32> = (0..16).map(|i| i * 7 % 40).collect();
    let before = hidden(model, &ids);
    ids[0] = 39;
    let after = hidden(model, &ids);
    let rows = before.chunks(12).zip(after.chunks(12)).enumerate();
    rows.filter(|(_, (before, after))| before != after).map(|(idx, _)| idx).collect()
}

#[test]
fn each_layer_sees_its_own_window() {
    let reach_of = |windows: &[Option<usize>]| {
        reach(&decoder(&config(windows, QkNorm::None), &Device::flex()))
    };
    let first = |n: usize| (0..n).collect::<Vec<usize>>();
    assert_eq!(reach_of(&[Some(1)]), first(1));
    assert_eq!(reach_of(&[Some(4)]), first(4));
    // Each layer adds its window less one.
    assert_eq!(reach_of(&[Some(4), Some(3)]), first(6));
    assert_eq!(reach_of(&[Some(4), None]), first(16));
    assert_eq!(reach_of(&[None, Some(4)]), first(16));
}

#[test]
fn windows_and_norms_of_heads_are_the_same_with_a_cache() {
    let config = config(&[Some(3), None, Some(5)], QkNorm::Heads);
    let model = decoder(&config, &Device::flex());
    let ids: Vec<u32> = (0..16).map(|i| i * 11 % 40).collect();
    let whole = hidden(&model, &ids);
    for step in [1, 3, 16] {
        let mut cache = KvCache::new(&[Some(3), None, Some(5)], 1, 16, 2, 8, &Device::flex());
        let mut got = Vec::new();
        for (idx, chunk) in ids.chunks(step).enumerate() {
            let start = (idx * step) as u32;
            let positions: Vec<u32> = (start..start + chunk.len() as u32).collect();
            let (segments, device) = (vec![0; chunk.len()], Device::flex());
            let tokens = TokenBatch::new(chunk, &positions, &segments, 1, chunk.len(), &device);
            let out = model.run(&Input::from(&tokens), Some(&mut cache), &mut |_| ());
            got.extend(values(&out.hidden_btd));
        }
        assert_close("cache", &got, &whole, Tolerance { absolute: 1e-5, of_largest: 1e-5 });
    }
}

#[test]
fn norms_of_heads_are_parameters_and_change_the_output() {
    let with = decoder(&config(&[None, None], QkNorm::Heads), &Device::flex());
    let without = decoder(&config(&[None, None], QkNorm::None), &Device::flex());
    let names = parameter_names(&with);
    let known = parameter_names(&without);
    let added: Vec<&String> = names.iter().filter(|name| !known.contains(name)).collect();
    assert_eq!(
        added,
        [
            "layers.0.self_attn.q_norm.weight",
            "layers.0.self_attn.k_norm.weight",
            "layers.1.self_attn.q_norm.weight",
            "layers.1.self_attn.k_norm.weight",
        ]
    );
    assert_eq!(with.num_params() - without.num_params(), 4 * 8);
    let ids: Vec<u32> = (0..9).collect();
    assert_ne!(hidden(&with, &ids), hidden(&without, &ids));
}

/// Every gradient of a sum over the hidden states, by name.
fn gradients(model: &RopeDecoder, ids: &[u32]) -> BTreeMap<String, Vec<f32>> {
    let out = model.run(&Input::from(&tokens(ids)), None, &mut |_| ()).hidden_btd;
    let weights =
        Tensor::<3>::from_data(testkit::wave::<3>(out.dims(), 0.37).into_data(), &Device::flex());
    let gradients = (out * weights).sum().backward();
    let mut found = BTreeMap::new();
    let mut visitor = Found { path: crate::NamePath::default(), gradients, found: &mut found };
    model.visit(&mut visitor);
    found
}

struct Found<'a> {
    path: crate::NamePath,
    gradients: burn::tensor::Gradients,
    found: &'a mut BTreeMap<String, Vec<f32>>,
}

impl burn::module::ModuleVisitor for Found<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
        let gradient = param.val().grad(&self.gradients).expect("a gradient");
        self.found.insert(self.path.name(), values(&gradient));
    }
}

#[test]
fn recomputed_blocks_with_windows_give_the_same_gradients() {
    let config = config(&[Some(3), None], QkNorm::Heads);
    let mut model = decoder(&config, &Device::flex().autodiff());
    let ids: Vec<u32> = (0..12).map(|i| i * 5 % 40).collect();
    let want = gradients(&model, &ids);
    assert!(want.keys().any(|name| name.ends_with("q_norm.weight")));
    assert!(want.values().all(|gradient| gradient.iter().any(|value| *value != 0.0)));
    model.recompute_blocks(true);
    assert_eq!(gradients(&model, &ids), want);
}
