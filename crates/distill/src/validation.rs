//! Evaluation on the validation rows: the divergence from the teacher, and the cross-entropy of the data.

use burn::tensor::Device;
use generate::without_autodiff;
use model::CausalLm;
use plan::StagePlan;
use train::EvalRow;

use crate::{Error, Objective, Result, Teaching};

/// The mean divergence on the validation set, up to `eval.max_rows`, with the metrics of next-token prediction beside it. No
/// autodiff graph is built.
pub(crate) fn validate(
    stage: &StagePlan,
    objective: &Objective,
    model: &CausalLm,
    teaching: &Teaching<'_>,
    step: u64,
    device: &Device,
) -> Result<EvalRow> {
    let of_data = evaluate::validation(stage, model, step, device)?;
    let student = without_autodiff(model);
    let max_rows = stage.keys.eval.as_ref().and_then(|eval| eval.max_rows);
    let (mut sum, mut n_targets) = (0.0, 0);
    for batch in stage.dataset.eval_batches(stage.micro_batch, max_rows) {
        if batch.n_targets == 0 {
            continue;
        }
        let batch = batch.trimmed();
        let targets = teaching.targets(&batch)?;
        sum += objective.measure(&student, &targets, &batch, device);
        n_targets += batch.n_targets as u64;
    }
    if n_targets == 0 {
        return Err(Error::NoTargets);
    }
    let eval_loss = sum / n_targets as f64;
    if !eval_loss.is_finite() {
        return Err(Error::NotFinite(eval_loss));
    }
    let mut extra = of_data.extra;
    extra.extend(of_data.eval_loss.map(|loss| ("cross_entropy".to_owned(), loss)));
    Ok(EvalRow { step, eval_loss: Some(eval_loss), n_targets, extra })
}
