//! Evaluation of preference training on its validation pairs.

use burn::tensor::Device;
use generate::without_autodiff;
use loss::LossSum;
use model::CausalLm;
use plan::StagePlan;
use train::EvalRow;

use crate::{
    Error, Objective, PreferenceMetrics, Reference, Result, answer_logprobs, n_chosen_tokens,
};

/// Loss, accuracy and margin on the validation set, up to `eval.max_rows`. No autodiff graph is built.
pub(crate) fn validate(
    stage: &StagePlan,
    objective: &Objective,
    model: &CausalLm,
    reference: &Reference,
    step: u64,
    device: &Device,
) -> Result<EvalRow> {
    let model = without_autodiff(model);
    let max_rows = stage.keys.eval.as_ref().and_then(|eval| eval.max_rows);
    let counts =
        stage.dataset.eval_batches(stage.micro_batch, max_rows).map(|b| n_chosen_tokens(&b));
    let (n_tokens, n_pairs) = counts.fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    let mean_chosen_tokens = n_tokens as f64 / n_pairs.max(1) as f64;
    let (mut metrics, mut loss_sum) = (PreferenceMetrics::default(), 0.0);
    for batch in stage.dataset.eval_batches(stage.micro_batch, max_rows) {
        let batch = batch.trimmed();
        let policy = answer_logprobs(&model, &batch, objective.logprobs(), device);
        let reference = reference.of(stage, &batch, &policy.pairs)?;
        loss_sum += LossSum::of(objective.losses(&policy, &reference, mean_chosen_tokens)).value();
        metrics.add(objective, &policy.pairs, &reference);
    }
    if metrics.n_pairs == 0 {
        return Err(Error::NoPairs);
    }
    let eval_loss = loss_sum / metrics.n_pairs as f64;
    if !eval_loss.is_finite() {
        return Err(Error::NotFinite(eval_loss));
    }
    Ok(EvalRow {
        step,
        eval_loss: Some(eval_loss),
        n_targets: metrics.n_pairs,
        extra: metrics.of_eval(),
    })
}
