//! Evaluation on the validation rows.

use burn::tensor::Device;
use data::Share;
use generate::without_autodiff;
use loss::{LossSum, UnpairedObjective};
use model::CausalLm;
use plan::StagePlan;
use train::EvalRow;

use crate::reference::eval_batches;
use crate::{Error, LabelMetrics, Reference, Result, answer_logprobs, divergence};

/// Loss, divergence and rewards on the validation set, up to `eval.max_rows`. No autodiff graph is built.
///
/// The rows are evaluated in parts of a step's size, each with its own divergence.
pub(crate) fn validate(
    stage: &StagePlan,
    objective: &UnpairedObjective,
    model: &CausalLm,
    reference: &Reference,
    step: u64,
    device: &Device,
) -> Result<EvalRow> {
    let model = without_autodiff(model);
    let (mut metrics, mut loss_sum) = (LabelMetrics::default(), 0.0);
    for batch in eval_batches(stage) {
        let whole = Share::WHOLE;
        let kl = divergence(stage, objective, &model, reference, &batch, whole, device)?.mean();
        metrics.add_kl(kl);
        for (_, micro) in batch.micro_batches_of(whole, 1, stage.micro_batch) {
            let micro = micro.trimmed();
            let policy_b = answer_logprobs(&model, &micro, device);
            let reference_b = reference.of(stage, &micro, &policy_b)?;
            let rewards_b = objective.rewards(policy_b.clone(), reference_b);
            metrics.add(&micro.labels, &policy_b, &rewards_b);
            loss_sum += LossSum::of(objective.losses(rewards_b, &micro.labels, kl)).value();
        }
    }
    let n_rows = metrics.n_rows();
    if n_rows == 0 {
        return Err(Error::NoTargets);
    }
    let eval_loss = loss_sum / n_rows as f64;
    if !eval_loss.is_finite() {
        return Err(Error::NotFinite(eval_loss));
    }
    Ok(EvalRow {
        step,
        eval_loss: Some(eval_loss),
        n_targets: n_rows,
        extra: metrics.named("eval_"),
    })
}
