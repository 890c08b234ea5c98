//! Direct preference optimization and its relatives: training on pairs of a chosen and a rejected answer (Rafailov et al.
//! 2023; `loss` names the sources of the other losses).
//!
//! Shape legend: p pairs, b texts (2 × p, chosen and rejected alternating).

mod logprobs;
mod metrics;
mod objective;
mod reference;
mod validation;

use data::Batch;
use loss::LossSum;
use model::CausalLm;
use plan::DpoPlan;
use train::{
    Context, Outcome, ReferenceSource, StageState, StepPlace, apply_update, finish_stage,
    start_or_resume_with, write_checkpoint,
};

pub use evaluate::{Error, Result};
use logprobs::answer_logprobs_and_auxiliary;
pub use logprobs::{PolicyLogprobs, Reading, answer_logprobs};
pub use metrics::PreferenceMetrics;
pub use objective::Objective;
pub use reference::{Reference, reference_key};

/// Trains from the newest checkpoint, or from the stage's initial weights, to the last step.
pub fn run(context: Context<'_>, dpo: &DpoPlan) -> Result<Outcome> {
    let (plan, stage, run_dir, device) =
        (context.plan, context.stage, context.run_dir, context.device);
    let replicas = context.replicas;
    let objective = Objective::of(&dpo.section);
    let reading = objective.logprobs();
    let state = start_or_resume_with::<CausalLm>(context, |_| objective.first_loss())?;
    let StageState { mut run, mut model, mut learner, save_format, dropout } = state;
    let reference = if objective.has_reference() {
        let key = reference_key(plan, stage, dpo, run_dir)?;
        let source = ReferenceSource { plan, stage, run_dir, key: &key, unit: ("pairs", 2) };
        let compute = |model: &CausalLm| Reference::compute(stage, &objective, model, device);
        Reference::Sums(source.load_or_precompute(&mut run, &model, &learner, compute)?)
    } else {
        Reference::Unused
    };
    if run.first_eval_due() {
        let model = learner.evaluated(&model);
        let row = validation::validate(stage, &objective, &model, &reference, 0, device)?;
        run.log_first_eval(row)?;
    }
    evaluate::log_first_samples(&mut run, plan, stage, || learner.evaluated(&model))?;

    while run.has_next_step() {
        let step = run.step();
        let batch = stage.dataset.batch(step);
        let place = StepPlace { step: step + 1, samples: &batch.samples };

        // The loss of a step is one sum over all its pairs, divided once by their number. Pairs are never split, and padding
        // that all texts of a micro-batch share is dropped, which changes no log-probability.
        learner.checks.targets(batch.n_targets as u64, place)?;
        let mut sums = learner.begin_step(batch.rows as u64 / 2, place)?;
        let mean_chosen_tokens = mean_chosen_tokens(&batch);
        let mut metrics = PreferenceMetrics::default();
        for (idx, micro) in batch.micro_batches_of(replicas.share(), 2, 2 * stage.micro_batch) {
            dropout.draw(step, idx);
            let micro = micro.trimmed();
            let (policy, auxiliary) =
                answer_logprobs_and_auxiliary(&model, &micro, reading, device);
            sums.expert_load.add(&auxiliary.expert_load);
            let reference = reference.of(stage, &micro, &policy.pairs)?;
            metrics.add(&objective, &policy.pairs, &reference);
            let loss = LossSum::of(objective.losses(&policy, &reference, mean_chosen_tokens));
            let n_pairs = loss.count;
            let loss = loss.with_aux_loss(auxiliary.loss, n_pairs);
            sums.loss += loss.value();
            sums.gradients.accumulate(&model, || loss.sum.backward());
        }
        metrics.sum_over_replicas(replicas)?;

        let lr = train::lr(&stage.keys.schedule, stage.keys.optimizer.lr, step, stage.max_steps);
        let report;
        (model, report) = apply_update(model, &mut learner, sums, lr)?;
        let tokens = batch.lengths().into_iter().sum::<usize>() as u64;
        run.log_step(report.with(tokens, metrics.of_step()))?;

        if run.eval_due() {
            let (step, model) = (run.step(), learner.evaluated(&model));
            let validate =
                || validation::validate(stage, &objective, &model, &reference, step, device);
            run.log_eval(evaluate::evaluation(plan, stage, &model, step, validate)?)?;
        }
        evaluate::log_samples(&mut run, plan, stage, || learner.evaluated(&model))?;
        run.save_if_due(|dir| write_checkpoint(dir, &save_format, &model, &learner))?;
    }
    Ok(finish_stage(run, model, &save_format, &learner)?)
}

/// Mean number of target tokens of the chosen answers of a batch, whose rows are chosen and rejected texts, alternating.
fn mean_chosen_tokens(batch: &Batch) -> f64 {
    let (n_tokens, n_pairs) = n_chosen_tokens(batch);
    n_tokens as f64 / n_pairs.max(1) as f64
}

/// Number of target tokens of the chosen answers of a batch, and number of pairs.
fn n_chosen_tokens(batch: &Batch) -> (usize, usize) {
    let chosen = batch.targets.chunks(batch.sequence_length.max(1)).step_by(2);
    let n_tokens = chosen.map(|row| row.iter().filter(|target| **target >= 0).count()).sum();
    (n_tokens, batch.rows / 2)
}
