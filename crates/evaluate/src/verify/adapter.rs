//! Replays a PEFT directory on its base model: logits with the adapter, merged weights, and logits after merging.

use std::path::Path;

use burn::tensor::Device;
use model::load_causal_lm;
use nn::TokenBatch;

use super::report::{Quantity, Tolerance};
use super::vectors::Vectors;
use crate::error::{Error, Result};
use crate::host_values::host_values;

const MERGED: Tolerance = Tolerance::absolute(1e-6);

pub(super) fn replay(dir: &Path, device: &Device) -> Result<Vec<Quantity>> {
    // The reference names no base model; it is in the same directory as the adapters.
    let base = load_causal_lm(&dir.with_file_name("base"), device)?;
    let (adapted, _) = lora::load(base, dir)?;
    let io = Vectors::open(&dir.join("io.safetensors"))?;
    let ids = io.ids("input_ids")?;
    let rows = ids.shape.first().copied().unwrap_or(0);
    let tokens = TokenBatch::of_rows(&ids.values, rows, device);
    let mut shape = ids.shape.clone();
    shape.push(adapted.model.config().vocab_size());
    let expected = io.floats_of("logits", &shape)?;
    let logits = |name, model: &model::CausalLm| {
        let mut quantity = Quantity::new(name);
        let got = host_values(&model.logits(model.forward(&tokens).hidden_btd));
        quantity.add("all", &got, &expected, Tolerance::LOGITS);
        quantity
    };
    let with_adapter = logits("logits", &adapted.model);

    let (model, _) = lora::merge(adapted.model)?;
    let reference = Vectors::open(&dir.join("merged.safetensors"))?;
    let mut merged = Quantity::new("merged_weights");
    let mut n_compared = 0;
    model::visit_tensors(&model, |name, shape, values| {
        merged.add(name, values, &reference.floats_of(name, shape)?, MERGED);
        n_compared += 1;
        Ok::<(), Error>(())
    })?;
    if n_compared != reference.names().len() {
        merged.add_difference(Some("number of tensors"), f64::INFINITY, 0.0, 1);
    }
    Ok(vec![with_adapter, merged, logits("merged_logits", &model)])
}
