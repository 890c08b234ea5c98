//! Evaluation of preference training on its validation pairs.

use burn::tensor::Device;
use generate::without_autodiff;
use loss::LossSum;
use model::CausalLm;
use plan::StagePlan;
use train::EvalRow;

use crate::{Objective, PreferenceMetrics, Reference, Result, answer_logprobs};

/// Loss, accuracy and margin on the validation set, up to `eval.max_rows`. No autodiff graph is built.
pub(crate) fn validate(
    stage: &StagePlan,
    objective: Objective,
    model: &CausalLm,
    reference: &Reference,
    step: u64,
    device: &Device,
) -> Result<EvalRow> {
    let model = without_autodiff(model);
    let max_rows = stage.keys.eval.as_ref().and_then(|eval| eval.max_rows);
    let (mut metrics, mut loss_sum) = (PreferenceMetrics::default(), 0.0);
    for batch in stage.dataset.eval_batches(stage.micro_batch, max_rows) {
        let batch = batch.trimmed();
        let policy = answer_logprobs(&model, &batch, device);
        let reference = reference.of(stage, &batch, &policy)?;
        loss_sum += LossSum::of(objective.losses(&policy, &reference)).value();
        metrics.add(objective, &policy, &reference);
    }
    if metrics.n_pairs == 0 {
        return Err(evaluate::Error::NoPairs.into());
    }
    let eval_loss = loss_sum / metrics.n_pairs as f64;
    if !eval_loss.is_finite() {
        return Err(evaluate::Error::NotFinite(eval_loss).into());
    }
    Ok(EvalRow { step, eval_loss, n_targets: metrics.n_pairs, extra: metrics.of_eval() })
}
