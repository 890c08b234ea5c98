//! Replays losses over pairs of answers: DPO and related losses, one value per pair. Coefficients are those in the names
//! of the reference's tensors.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use loss::{
    PairContext, PairLogprobs, PairLoss, PairObjective, SequenceLogprobs, orpo_odds_ratio, simpo,
};

use super::report::{Quantity, Tolerance};
use super::vectors::Vectors;
use crate::error::Result;
use crate::host_values::host_values;

/// Losses of IPO reach 20, where f32 has a resolution of 2e-6.
const TOLERANCE: Tolerance = Tolerance { absolute: 1e-6, relative: 3e-7 };
const BETA: f64 = 0.1;

pub(super) fn replay(path: &Path, device: &Device) -> Result<Vec<Quantity>> {
    let file = Vectors::open(path)?;
    let policy = pairs(&file, "policy", device)?;
    let reference = pairs(&file, "ref", device)?;
    let context = PairContext { mean_chosen_tokens: 1.0, weights_p: None };
    let dpo = |loss| PairObjective::one(loss, BETA).losses(&policy, &reference, &context);
    let losses = [
        ("dpo_sigmoid", dpo(PairLoss::Sigmoid { label_smoothing: 0.0 })),
        ("dpo_hinge", dpo(PairLoss::Hinge)),
        ("dpo_ipo", dpo(PairLoss::Ipo)),
        ("dpo_label_smoothing_0_1", dpo(PairLoss::Sigmoid { label_smoothing: 0.1 })),
        ("simpo_beta2_gamma1", simpo(&policy, 2.0, 1.0)),
        ("orpo_odds_ratio_term", orpo_odds_ratio(&policy)),
    ];
    let mut quantities = Vec::new();
    for (name, got) in losses {
        let mut quantity = Quantity::new(name);
        quantity.add("all", &host_values(&got), &file.floats_of(name, &got.dims())?, TOLERANCE);
        quantities.push(quantity);
    }
    Ok(quantities)
}

fn pairs(file: &Vectors, model: &str, device: &Device) -> Result<PairLogprobs> {
    let side = |side: &str| -> Result<SequenceLogprobs> {
        let logprobs = file.floats(&format!("{model}_{side}_logprobs"))?;
        let &[p, t] = &logprobs.shape[..] else {
            return Err(
                file.bad(format!("tensor `{model}_{side}_logprobs` must have two dimensions"))
            );
        };
        let mask = file.floats_of(&format!("{side}_mask"), &logprobs.shape)?;
        let tensor = |values| Tensor::from_data(TensorData::new(values, [p, t]), device);
        Ok(SequenceLogprobs::from_tokens(tensor(logprobs.values), tensor(mask)))
    };
    Ok(PairLogprobs { chosen: side("chosen")?, rejected: side("rejected")? })
}
