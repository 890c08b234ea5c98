//! Kahneman–Tversky optimization: training on single answers that are labelled desirable or undesirable (Ethayarajh et al.
//! 2024).
//!
//! Shape legend: b texts.

mod divergence;
mod logprobs;
mod metrics;
mod reference;
mod validation;

use loss::{LossSum, UnpairedLoss, UnpairedObjective};
use model::CausalLm;
use plan::KtoPlan;
use recipe::{KtoLoss, KtoSection};
use train::{
    Context, FirstLoss, Outcome, ReferenceSource, StageState, StepPlace, apply_update,
    finish_stage, start_or_resume_with, write_checkpoint,
};

pub use divergence::DivergenceSum;
use divergence::divergence;
pub use evaluate::{Error, Result};
pub use logprobs::answer_logprobs;
use logprobs::answer_logprobs_and_auxiliary;
pub use metrics::LabelMetrics;
pub use reference::{Reference, reference_key};

/// Trains from the newest checkpoint, or from the stage's initial weights, to the last step.
pub fn run(context: Context<'_>, kto: &KtoPlan) -> Result<Outcome> {
    let (plan, stage, run_dir, device) =
        (context.plan, context.stage, context.run_dir, context.device);
    let replicas = context.replicas;
    let objective = objective(&kto.section);
    let loss = objective.at_reference(&stage.dataset.batch(0).labels);
    let state = start_or_resume_with::<CausalLm>(context, |_| FirstLoss::Near { loss })?;
    let StageState { mut run, mut model, mut learner, save_format, dropout } = state;
    let key = reference_key(plan, stage, kto, run_dir)?;
    let source = ReferenceSource { plan, stage, run_dir, key: &key, unit: ("texts", 1) };
    let compute = |model: &CausalLm| Reference::compute(stage, &objective, model, device);
    let reference = Reference(source.load_or_precompute(&mut run, &model, &learner, compute)?);
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
        learner.checks.targets(batch.n_targets as u64, place)?;

        // The divergence is one number for the whole step, whatever its micro-batches and replicas, and has no gradient.
        let share = replicas.share();
        let mut kl = divergence(stage, &objective, &model, &reference, &batch, share, device)?;
        kl.sum_over_replicas(replicas)?;

        // The loss of a step is one sum over all its rows, divided once by their number. Padding that all texts of a
        // micro-batch share is dropped, which changes no log-probability.
        let mut sums = learner.begin_step(batch.rows as u64, place)?;
        let mut metrics = LabelMetrics::default();
        metrics.add_kl(kl.mean());
        for (idx, micro) in batch.micro_batches_of(share, 1, stage.micro_batch) {
            dropout.draw(step, idx);
            let micro = micro.trimmed();
            let (policy_b, auxiliary) = answer_logprobs_and_auxiliary(&model, &micro, device);
            sums.expert_load.add(&auxiliary.expert_load);
            let reference_b = reference.of(stage, &micro, &policy_b)?;
            let rewards_b = objective.rewards(policy_b.clone(), reference_b);
            metrics.add(&micro.labels, &policy_b, &rewards_b);
            let loss = LossSum::of(objective.losses(rewards_b, &micro.labels, kl.mean()));
            let n_rows = loss.count;
            let loss = loss.with_aux_loss(auxiliary.loss, n_rows);
            sums.loss += loss.value();
            sums.gradients.accumulate(&model, || loss.sum.backward());
        }
        metrics.sum_over_replicas(replicas)?;

        let lr = train::lr(&stage.keys.schedule, stage.keys.optimizer.lr, step, stage.max_steps);
        let report;
        (model, report) = apply_update(model, &mut learner, sums, lr)?;
        let tokens = batch.lengths().into_iter().sum::<usize>() as u64;
        run.log_step(report.with(tokens, metrics.named("")))?;

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

/// The loss of a recipe's section. `loss` has the formulas and their sources.
pub fn objective(section: &KtoSection) -> UnpairedObjective {
    UnpairedObjective {
        loss: match section.loss {
            KtoLoss::Kto => UnpairedLoss::Kto,
            KtoLoss::ApoZeroUnpaired => UnpairedLoss::ApoZeroUnpaired,
        },
        beta: section.beta,
        desirable_weight: section.desirable_weight,
        undesirable_weight: section.undesirable_weight,
    }
}
