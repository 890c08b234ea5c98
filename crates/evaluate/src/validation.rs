//! The measurement that a stage takes of itself, on what its recipe holds out.

use std::collections::BTreeMap;

use burn::tensor::Device;
use model::CausalLm;
use plan::StagePlan;
use train::EvalRow;

use crate::{Result, measure};

/// Loss, perplexity and bits per byte over the stage's validation part, or the share of it that the recipe asks for.
pub fn validation(
    stage: &StagePlan,
    model: &CausalLm,
    step: u64,
    device: &Device,
) -> Result<EvalRow> {
    let max_rows = stage.keys.eval.as_ref().and_then(|eval| eval.max_rows);
    let batches = stage.dataset.eval_batches(stage.micro_batch, max_rows);
    let measured = measure(model, &stage.tokenizer, batches, device)?;
    let mut extra = BTreeMap::from([("perplexity".to_owned(), measured.perplexity())]);
    if let Some(bits) = measured.bits_per_byte() {
        extra.insert("bits_per_byte".to_owned(), bits);
    }
    Ok(EvalRow { step, eval_loss: measured.loss(), n_targets: measured.n_targets, extra })
}
