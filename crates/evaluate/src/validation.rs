//! The evaluation of a stage's model on its validation set.

use std::collections::BTreeMap;

use burn::tensor::Device;
use model::{CausalLm, ScalarModel};
use plan::StagePlan;
use train::EvalRow;

use crate::{Result, measure, pair_metrics};

/// Loss, perplexity and bits per byte on the stage's validation set, or on its first `eval.max_rows` rows.
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

/// Metrics of pairs on a reward stage's validation set, or on its first `eval.max_rows` rows.
pub fn validation_pairs(
    stage: &StagePlan,
    model: &ScalarModel,
    step: u64,
    device: &Device,
) -> Result<EvalRow> {
    let max_rows = stage.keys.eval.as_ref().and_then(|eval| eval.max_rows);
    let batches = stage.dataset.eval_batches(stage.micro_batch, max_rows);
    let metrics = pair_metrics(model, batches, device)?;
    let extra = metrics.metrics();
    Ok(EvalRow { step, eval_loss: metrics.loss(), n_targets: metrics.n_pairs, extra })
}
