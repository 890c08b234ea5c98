//! The evaluation of a stage's model on its validation set and on the tasks of `eval.tasks`.

use std::collections::BTreeMap;

use burn::tensor::Device;
use model::{CausalLm, ScalarModel};
use plan::{EvalTask, Plan, StagePlan, TASK_PREFIX};
use seed::Purpose;
use tasks::{Item, Task};
use train::EvalRow;

use crate::{
    Error, PairMetrics, Result, Scorer, TaskRun, measure, pair_metrics, run_pairs, run_task,
};

/// The evaluation of a language model after `step` updates: `validation` if the stage has validation data, and the metrics of
/// its tasks.
pub fn evaluation<E: From<Error>>(
    plan: &Plan,
    stage: &StagePlan,
    model: &CausalLm,
    step: u64,
    validation: impl FnOnce() -> std::result::Result<EvalRow, E>,
) -> std::result::Result<EvalRow, E> {
    let mut row = if stage.dataset.n_eval_rows() > 0 {
        validation()?
    } else {
        EvalRow { step, ..EvalRow::default() }
    };
    let seed = seed::derive(plan.seed, &stage.name, Purpose::Eval, 0, 0);
    let tokenizer = &stage.tokenizer;
    let run = |task: &Task, items: &[Item]| {
        run_task(model, tokenizer, None, task, items, seed, &mut |_, _| {})
    };
    row.extra.extend(task_metrics(stage, run)?);
    Ok(row)
}

/// As [`evaluation`], for reward models; with the metrics of the validation pairs, if there are any.
pub fn evaluation_of_scores(
    stage: &StagePlan,
    model: &ScalarModel,
    step: u64,
    device: &Device,
) -> Result<(EvalRow, Option<PairMetrics>)> {
    let mut row = EvalRow { step, ..EvalRow::default() };
    let mut pairs = None;
    if stage.dataset.n_eval_rows() > 0 {
        let metrics = validation_metrics(stage, model, device)?;
        row = row_of_pairs(step, &metrics);
        pairs = Some(metrics);
    }
    if !stage.eval_tasks.tasks.is_empty() {
        let scorer = Scorer::new(model, &stage.tokenizer)?;
        let run = |task: &Task, items: &[Item]| run_pairs(&scorer, task, items, &mut |_, _| {});
        row.extra.extend(task_metrics(stage, run)?);
    }
    Ok((row, pairs))
}

/// Metrics of the stage's tasks by their names in logs: `task/NAME/METRIC`, and `task/NAME/METRIC_stderr` where it has a
/// standard error. Draws of tasks that sample are the same at every step. Prompts that lost their beginning are counted in
/// `task/NAME/truncated_prompts`.
fn task_metrics(
    stage: &StagePlan,
    run: impl Fn(&Task, &[Item]) -> Result<TaskRun>,
) -> Result<BTreeMap<String, f64>> {
    let mut metrics = BTreeMap::new();
    for EvalTask { task, items, .. } in &stage.eval_tasks.tasks {
        let run = run(task, items)?;
        let name = |metric: &str| format!("{TASK_PREFIX}{}/{metric}", task.name());
        for estimate in &run.estimates {
            let metric = name(&estimate.label());
            metrics.extend(estimate.stderr.map(|error| (format!("{metric}_stderr"), error)));
            metrics.insert(metric, estimate.value);
        }
        if run.n_truncated > 0 {
            metrics.insert(name("truncated_prompts"), run.n_truncated as f64);
        }
    }
    Ok(metrics)
}

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
    let mut extra = BTreeMap::from([
        ("perplexity".to_owned(), measured.perplexity()),
        ("mean_token_accuracy".to_owned(), measured.mean_token_accuracy()),
    ]);
    if let Some(bits) = measured.bits_per_byte() {
        extra.insert("bits_per_byte".to_owned(), bits);
    }
    Ok(EvalRow { step, eval_loss: Some(measured.loss()), n_targets: measured.n_targets, extra })
}

/// Metrics of pairs on a reward stage's validation set, or on its first `eval.max_rows` rows.
pub fn validation_pairs(
    stage: &StagePlan,
    model: &ScalarModel,
    step: u64,
    device: &Device,
) -> Result<EvalRow> {
    Ok(row_of_pairs(step, &validation_metrics(stage, model, device)?))
}

fn validation_metrics(
    stage: &StagePlan,
    model: &ScalarModel,
    device: &Device,
) -> Result<PairMetrics> {
    let max_rows = stage.keys.eval.as_ref().and_then(|eval| eval.max_rows);
    pair_metrics(model, stage.dataset.eval_batches(stage.micro_batch, max_rows), device)
}

fn row_of_pairs(step: u64, metrics: &PairMetrics) -> EvalRow {
    let (n_targets, extra) = (metrics.n_pairs, metrics.metrics());
    EvalRow { step, eval_loss: Some(metrics.loss()), n_targets, extra }
}
