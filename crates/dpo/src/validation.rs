//! The measurement that the stage takes of itself, on the pairs that its recipe holds out.

use burn::tensor::Device;
use generate::without_autodiff;
use loss::LossSum;
use model::CausalLm;
use plan::StagePlan;
use train::EvalRow;

use crate::{Figures, Objective, Reference, Result, answer_logprobs};

/// Loss, accuracy and margin of what is held out, or of the share of it that the recipe asks for. No graph is built.
pub(crate) fn validation(
    stage: &StagePlan,
    objective: Objective,
    model: &CausalLm,
    reference: &Reference,
    step: u64,
    device: &Device,
) -> Result<EvalRow> {
    let model = without_autodiff(model);
    let max_rows = stage.keys.eval.as_ref().and_then(|eval| eval.max_rows);
    let (mut figures, mut loss_sum) = (Figures::default(), 0.0);
    for batch in stage.dataset.eval_batches(stage.micro_batch, max_rows) {
        let batch = batch.trimmed();
        let policy = answer_logprobs(&model, &batch, device);
        let reference = reference.of(stage, &batch, &policy)?;
        loss_sum += LossSum::of(objective.losses(&policy, &reference)).value();
        figures.add(objective, &policy, &reference);
    }
    if figures.n_pairs == 0 {
        return Err(evaluate::Error::NoPairs.into());
    }
    let eval_loss = loss_sum / figures.n_pairs as f64;
    if !eval_loss.is_finite() {
        return Err(evaluate::Error::NotFinite(eval_loss).into());
    }
    Ok(EvalRow { step, eval_loss, n_targets: figures.n_pairs, extra: figures.of_eval() })
}
