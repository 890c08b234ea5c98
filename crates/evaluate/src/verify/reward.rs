//! Replays a reward model's directory: scores at each text's last token, the three pair losses, and the gradients of the
//! loss without margin and centring. Rows alternate: chosen, rejected.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use loss::{LossSum, pairwise_reward, reward_centering};
use model::load_scalar_model;
use nn::TokenBatch;
use train::{Gradients, ParameterNames};

use super::gradients::{self, Covers};
use super::report::{Quantity, Tolerance};
use super::vectors::Vectors;
use crate::error::Result;
use crate::host_values::host_values;

const SCORES: Tolerance = Tolerance { absolute: 1e-5, relative: 3e-6 };
const LOSS: f64 = 1e-5;
/// The reference's factor of the centring term.
const CENTERING: f64 = 0.01;

pub(super) fn replay(dir: &Path, device: &Device) -> Result<Vec<Quantity>> {
    let model = load_scalar_model(dir, &device.clone().autodiff())?;
    let io = Vectors::open(&dir.join("io.safetensors"))?;
    let ids = io.ids_for(model.config(), "input_ids")?;
    let mask = io.mask("attention_mask", &ids.shape)?;
    let &[rows, t] = &ids.shape[..] else {
        return Err(io.bad("tensor `input_ids` must have two dimensions".to_owned()));
    };
    let lengths: Vec<usize> =
        mask.chunks(t.max(1)).map(|row| row.iter().filter(|real| **real).count()).collect();
    if rows % 2 != 0 || lengths.contains(&0) {
        return Err(io.bad("rows must be pairs of non-empty texts".to_owned()));
    }
    let last: Vec<usize> = lengths.iter().map(|length| length - 1).collect();
    let tokens = TokenBatch::padded(&ids.values, &mask, rows, device);
    let scores = model.scores_at(&tokens, &last);
    let mut quantity = Quantity::new("scores");
    quantity.add("all", &host_values(&scores), &io.floats_of("scores", &[rows])?, SCORES);
    let mut quantities = vec![quantity];

    let pairs = scores.reshape([rows / 2, 2]);
    let side = |column: usize| -> Tensor<1> {
        pairs.clone().slice([0..rows / 2, column..column + 1]).reshape([rows / 2])
    };
    let margin = io.floats_of("margin", &[rows / 2])?;
    let margin = Tensor::from_data(TensorData::new(margin, [rows / 2]), &pairs.device());
    let mean = |sum: &LossSum| sum.value() / sum.count as f64;
    let plain = pairwise_reward(side(0), side(1), None);
    let with_margin = mean(&pairwise_reward(side(0), side(1), Some(margin)));
    let centred = mean(&plain) + CENTERING * mean(&reward_centering(side(0), side(1)));
    for (name, got) in
        [("loss", mean(&plain)), ("loss_with_margin", with_margin), ("loss_centered", centred)]
    {
        let expected = io.floats_of(name, &[1])?;
        let expected = expected.first().map_or(f64::NAN, |&loss| f64::from(loss));
        quantities.push(Quantity::number(name, got, expected, LOSS));
    }

    let names = ParameterNames::of(&model);
    let mut gradients = Gradients::new(&names);
    let count = plain.count;
    gradients.accumulate(&model, || plain.mean_over(count).backward());
    let path = dir.join("grads.safetensors");
    quantities.push(gradients::compare("gradients", &gradients, &names, &path, Covers::All)?);
    Ok(quantities)
}
