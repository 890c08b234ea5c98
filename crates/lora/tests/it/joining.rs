//! Models on one base, joined: each row of a batch has the outputs of its own model.

use burn::tensor::Device;
use lora::{LoraConfig, attach, is_joinable, join};
use model::CausalLm;
use nn::TokenBatch;
use testkit::{Tolerance, assert_close, values};

use crate::support::{names, settings, tiny_gpt2, tiny_llama, variants, with_trained_waves};

fn adapted(base: &CausalLm, config: &LoraConfig) -> CausalLm {
    let adapted = attach(base.clone(), config, 5).expect("an adapter").model;
    with_trained_waves(adapted, config)
}

/// Logits of the rows `ids`, each of five tokens.
fn logits(model: &CausalLm, ids: &[u32], rows: usize) -> Vec<f32> {
    let tokens = TokenBatch::of_rows(ids, rows, &Device::flex());
    values(&model.logits(model.forward(&tokens).hidden_btd))
}

#[test]
fn each_row_has_the_outputs_of_its_model() {
    let device = Device::flex();
    for (base, first, second) in [
        (tiny_llama(&device), ["q_proj", "down_proj"], ["q_proj", "v_proj"]),
        (tiny_gpt2(&device), ["c_attn", "mlp.c_proj"], ["c_fc", "c_attn"]),
    ] {
        let small = LoraConfig { rank: 2, ..settings(names(&second)) };
        let models = [adapted(&base, &settings(names(&first))), adapted(&base, &small)];
        assert!(models.iter().all(|model| is_joinable(&base, model)));
        let joined = join(base.clone(), models.to_vec());
        let rows = joined.adapter_rows().expect("a choice").clone();
        let ids: Vec<u32> = (0..20).map(|i| (i * 37 + 5) % 96).collect();
        let alone = |adapter: Option<usize>, ids: &[u32], n: usize| {
            logits(adapter.map_or(&base, |number| &models[number]), ids, n)
        };
        // All rows with one adapter: the same kernels, so the same bits.
        for adapter in [None, Some(0), Some(1)] {
            rows.set(&[adapter; 4]);
            assert!(logits(&joined, &ids, 4) == alone(adapter, &ids, 4), "{adapter:?}");
        }
        let mixed = [Some(1), None, Some(0), Some(1)];
        rows.set(&mixed);
        let got = logits(&joined, &ids, 4);
        let of_row = got.len() / 4;
        for (row, adapter) in mixed.into_iter().enumerate() {
            let expected = alone(adapter, &ids[row * 5..][..5], 1);
            let tolerance = Tolerance { absolute: 1e-6, of_largest: 1e-5 };
            assert_close("row", &got[row * of_row..][..of_row], &expected, tolerance);
            assert!(adapter.is_none() || expected != alone(None, &ids[row * 5..][..5], 1));
        }
        // A row does not depend on the adapters of others.
        rows.set(&[Some(1), Some(0), Some(0), Some(0)]);
        assert!(logits(&joined, &ids, 4)[..of_row] == got[..of_row]);
    }
}

/// Low-rank products in the blocks can be joined; what changes other parameters, rows or the base weights cannot.
#[test]
fn only_low_rank_products_can_be_joined() {
    for (config, base) in variants() {
        let model = adapted(&base, &config);
        let is_plain = !config.use_dora
            && !config.lora_bias
            && config.init == lora::LoraInit::default()
            && config.bias == lora::BiasTraining::default()
            && config.modules_to_save.is_empty()
            && config.trainable_tokens.is_empty()
            && !format!("{:?}", config.targets).contains("embed_tokens")
            && !format!("{:?}", config.targets).contains("lm_head")
            && !format!("{:?}", config.targets).contains("wte");
        assert_eq!(is_joinable(&base, &model), is_plain, "{config:?}");
    }
    let device = Device::flex();
    let plain = settings(names(&["q_proj"]));
    let other = CausalLm::init(tiny_llama(&device).config(), 4, &device);
    assert!(!is_joinable(&other, &adapted(&tiny_llama(&device), &plain)));
}
