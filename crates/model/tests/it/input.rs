//! Embeddings in place of token ids, and packed weights in a whole model.

use burn::tensor::{Device, Int, Tensor, TensorData};
use model::{CausalLm, Dtype, Error, parameter_names};
use nn::{Input, PackedFormat, TokenBatch};
use testkit::{Tolerance, assert_close, tiny_gpt2, tiny_llama, values};

use crate::support::{config, logits};

const V: usize = 70;

fn models(device: &Device) -> Vec<CausalLm> {
    let configs = [tiny_llama(V), tiny_gpt2(V, true)];
    configs.iter().map(|value| CausalLm::init(&config(value), 3, device)).collect()
}

fn tokens() -> TokenBatch {
    let ids: Vec<u32> = (0..22).map(|i| i * 31 % V as u32).collect();
    let mask: Vec<bool> = (0..22).map(|i| i != 0 && i != 21).collect();
    TokenBatch::padded(&ids, &mask, 2, &Device::flex())
}

/// The rows of the embedding table, picked on the host.
fn embedded_by_hand(model: &CausalLm, tokens: &TokenBatch) -> Tensor<3> {
    let table = model.backbone.embedding_weight();
    let [_, d] = table.dims();
    let table = values(&table);
    let ids: Vec<i32> = tokens.ids_bt.to_data().convert::<i32>().iter().collect();
    let rows: Vec<f32> =
        ids.iter().flat_map(|id| table[*id as usize * d..][..d].to_vec()).collect();
    let [b, t] = tokens.dims();
    Tensor::from_data(TensorData::new(rows, [b, t, d]), &Device::flex())
}

#[test]
fn embeddings_give_the_bits_of_their_ids() {
    for model in models(&Device::flex()) {
        let tokens = tokens();
        let input = Input::with_embeddings(&tokens, embedded_by_hand(&model, &tokens));
        let from_ids = values(&model.forward(&tokens).hidden_btd);
        assert_eq!(values(&model.forward(input.clone()).hidden_btd), from_ids);
        let states = model.backbone.hidden_states(input.clone());
        assert_eq!(values(states.last().expect("a state")), from_ids);
        // With a cache, a prefix of embeddings followed by ids.
        let [b, t] = tokens.dims();
        let mut cache = model.new_cache(b, t + 1);
        let prompt = model.backbone.forward_cached(input, &mut cache);
        assert_close("prompt", &values(&prompt.hidden_btd), &from_ids, Tolerance::absolute(1e-5));
        assert_eq!(cache.len(), t);
        let next = TokenBatch::new(&[5, 6], &[10, 10], &[0, 0], 2, 1, &Device::flex());
        let got = values(&model.backbone.forward_cached(&next, &mut cache).hidden_btd);
        assert!(got.iter().all(|value| value.is_finite()));
    }
}

#[test]
fn gradients_reach_the_embeddings() {
    for model in models(&Device::flex().autodiff()) {
        let tokens = tokens();
        let embeddings = embedded_by_hand(&model, &tokens).autodiff().require_grad();
        let loss = |hidden_nd: Tensor<2>| {
            let targets: Vec<i32> =
                (0..22).map(|i| if i % 4 == 0 { -1 } else { i * 3 % 70 }).collect();
            let targets_n = Tensor::<1, Int>::from_data(targets.as_slice(), &Device::flex());
            loss::cross_entropy(hidden_nd, model.head_weight(), targets_n, 16).sum
        };
        let input = Input::with_embeddings(&tokens, embeddings.clone());
        let gradients = loss(model.forward(input).hidden_nd()).backward();
        let got = values(&embeddings.grad(&gradients).expect("a gradient"));
        // Added up by id, they are the table's gradient; a tied head adds its own, so only an untied model is compared.
        if model.lm_head.is_none() {
            assert!(got.iter().any(|value| *value != 0.0));
            continue;
        }
        let gradients = loss(model.forward(&tokens).hidden_nd()).backward();
        let table = model.backbone.embedding_weight();
        let want = values(&table.grad(&gradients).expect("a gradient"));
        let d = table.dims()[1];
        let mut sums = vec![0.0; want.len()];
        let ids: Vec<i32> = tokens.ids_bt.to_data().convert::<i32>().iter().collect();
        for (id, gradient) in ids.iter().zip(got.chunks(d)) {
            let sum = &mut sums[*id as usize * d..][..d];
            sum.iter_mut().zip(gradient).for_each(|(sum, value)| *sum += value);
        }
        assert_close("table", &sums, &want, Tolerance { absolute: 1e-6, of_largest: 1e-5 });
    }
}

#[test]
fn a_packed_model_is_near_its_original_and_is_not_written() {
    for model in models(&Device::flex()) {
        let tokens = tokens();
        let exact = logits(&model, &tokens);
        let mut distances = Vec::new();
        for format in [PackedFormat::Int8, PackedFormat::Nf4] {
            let mut packed = model.clone();
            let mut n_layers = 0;
            for (_, layer) in packed.backbone.projections_mut() {
                let weight = layer.weight_mut();
                *weight = weight.pack(format);
                n_layers += 1;
            }
            assert!(n_layers > 0);
            let got = logits(&packed, &tokens);
            let distance = exact.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            distances.push(distance);
            // Packed weights are no float parameters: nothing trains them or counts them as trained.
            assert!(parameter_names(&packed).len() < parameter_names(&model).len());
            let error = packed.write_safetensors(&mut Vec::new(), Dtype::F32).expect_err("packed");
            assert!(
                matches!(&error, Error::Packed { name } if name.ends_with(".weight")),
                "{error}"
            );
        }
        let largest = exact.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
        assert!(0.0 < distances[0] && distances[0] < distances[1], "{distances:?}");
        assert!(distances[1] < 0.5 * largest, "{distances:?} of {largest}");
    }
}

/// Angles are computed when a text needs them, so a context of millions takes no memory, and they are those of a short one.
#[test]
fn a_context_of_millions_has_angles_as_they_are_needed() {
    let device = Device::flex();
    let model = |n_positions: usize| {
        let mut keys = tiny_llama(V);
        keys["max_position_embeddings"] = n_positions.into();
        CausalLm::init(&config(&keys), 3, &device)
    };
    let (long, short) = (model(1 << 24), model(9000));
    for first in [0, 5000, 100, 8995] {
        let positions: Vec<u32> = (first..first + 5).collect();
        let tokens = TokenBatch::new(&[1, 2, 3, 4, 5], &positions, &[0; 5], 1, 5, &device);
        let hidden = |model: &CausalLm| values(&model.forward(&tokens).hidden_nd());
        assert_eq!(hidden(&long), hidden(&short), "from position {first}");
    }
}
