//! Direct preference optimization and its relatives: training on pairs of a chosen and a rejected answer (Rafailov et al.
//! 2023; `loss` names the sources of the other losses).
//!
//! Shape legend: p pairs, b texts (2 × p, chosen and rejected alternating).

mod error;
mod logprobs;
mod metrics;
mod objective;
mod reference;
mod validation;

use loss::LossSum;
use model::CausalLm;
use plan::DpoPlan;
use train::{
    Context, Outcome, StageState, StepPlace, apply_update, finish_stage, start_or_resume_with,
    write_checkpoint,
};

pub use error::{Error, Result};
pub use logprobs::answer_logprobs;
use logprobs::answer_logprobs_and_auxiliary;
pub use metrics::PreferenceMetrics;
pub use objective::Objective;
pub use reference::{REFERENCE_DIR, Reference, Saved, reference_key};

/// Trains from the newest checkpoint, or from the stage's initial weights, to the last step.
pub fn run(context: Context<'_>, dpo: &DpoPlan) -> Result<Outcome> {
    let (plan, stage, run_dir, device) =
        (context.plan, context.stage, context.run_dir, context.device);
    let replicas = context.replicas;
    let objective = Objective::of(&dpo.section);
    let state = start_or_resume_with::<CausalLm>(context, |_| objective.first_loss())?;
    let StageState { mut run, mut model, mut learner, save_format, dropout } = state;
    let reference = if objective.has_reference() {
        let key = reference_key(plan, stage, dpo, run_dir)?;
        reference::load_or_precompute(plan, stage, &key, run_dir, &mut run, &model, &learner)?
    } else {
        Reference::Unused
    };

    while run.has_next_step() {
        let step = run.step();
        let batch = stage.dataset.batch(step);
        let place = StepPlace { step: step + 1, samples: &batch.samples };

        // The loss of a step is one sum over all its pairs, divided once by their number. Pairs are never split, and padding
        // that all texts of a micro-batch share is dropped, which changes no log-probability.
        learner.checks.targets(batch.n_targets as u64, place)?;
        let mut sums = learner.begin_step(batch.rows as u64 / 2, place)?;
        let mut metrics = PreferenceMetrics::default();
        for (idx, micro) in batch.micro_batches_of(replicas.share(), 2, 2 * stage.micro_batch) {
            dropout.draw(step, idx);
            let micro = micro.trimmed();
            let (policy, auxiliary) = answer_logprobs_and_auxiliary(&model, &micro, device);
            sums.expert_load.add(&auxiliary.expert_load);
            let reference = reference.of(stage, &micro, &policy)?;
            metrics.add(objective, &policy, &reference);
            let loss = LossSum::of(objective.losses(&policy, &reference));
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
            let row = validation::validate(stage, objective, &model, &reference, step, device)?;
            run.log_eval(row)?;
        }
        run.save_if_due(|dir| write_checkpoint(dir, &save_format, &model, &learner))?;
    }
    Ok(finish_stage(run, model, &save_format, &learner)?)
}
