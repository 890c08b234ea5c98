//! Direct preference optimization and its relatives: learn which of two answers to give, from the pairs themselves
//! (Rafailov et al. 2023; the other losses and their sources stand in `loss`). The whole loop stands in [`run`].
//!
//! It deliberately knows nothing of files' formats, arguments or printing: a [`Context`] brings the plan, the folder and
//! whoever watches.
//!
//! Shape legend: p pairs, b texts (2 × p: chosen and rejected in turn).

mod error;
mod logprobs;
mod metrics;
mod objective;
mod reference;
mod validation;

use std::time::Instant;

use burn::tensor::Device;
use loss::LossSum;
use model::CausalLm;
use plan::{DpoPlan, Plan, StagePlan};
use serde_json::json;
use train::{
    BaseModelCache, Context, Gradients, LeaderFirst, ModelSource, Outcome, RunDir, StageRun,
    StepPlace, StepReport, Weights, compare_replicas, first_weights, start_or_resume_with,
    write_checkpoint, write_model,
};

pub use error::{Error, Result};
pub use logprobs::answer_logprobs;
pub use metrics::Figures;
pub use objective::Objective;
pub use reference::{REFERENCE_DIR, Reference, reference_key};

/// Trains from the newest checkpoint, or from the stage's start, to the last step.
pub fn run(context: Context<'_>, dpo: &DpoPlan) -> Result<Outcome> {
    let (plan, stage, run_dir, device) =
        (context.plan, context.stage, context.run_dir, context.device);
    let replicas = context.replicas;
    let objective = Objective::of(&dpo.section);
    let model_dir = run_dir.stage(&stage.name).model();
    let begun = start_or_resume_with::<CausalLm>(context, |_| objective.first_loss())?;
    let train::StageState {
        mut run,
        mut model,
        mut optimizer,
        names,
        mut checks,
        save_format,
        dropout,
    } = begun;
    let reference = if objective.has_reference() {
        // The leader asks and keeps the answers; the others read them.
        let turn = LeaderFirst::wait(replicas)?;
        let key = reference_key(plan, stage, dpo, run_dir)?;
        let reference =
            precompute_ref_logprobs(plan, stage, &key, run_dir, &mut run, &model, device)?;
        turn.end()?;
        reference
    } else {
        Reference::Unused
    };

    while !run.is_done() {
        // A batch is a pure function of the seed and the step: there is no loader to resume.
        let step = run.step();
        let batch = stage.dataset.batch(step);
        let n_pairs = batch.rows as u64 / 2;
        let place = StepPlace { step: step + 1, samples: &batch.samples };
        checks.targets(batch.n_targets as u64, place)?;

        // The loss of a step is one sum over all its pairs, divided once by their number. A pair is never divided, and
        // the padding that all texts of a micro-batch share is left out: it changes no probability.
        let mut gradients = Gradients::new(&names);
        let (mut figures, mut loss_sum) = (Figures::default(), 0.0);
        for (idx, micro) in batch.micro_batches_of(replicas.share(), 2, 2 * stage.micro_batch) {
            let micro = micro.trimmed();
            dropout.draw(step, idx);
            let policy = answer_logprobs(&model, &micro, device);
            let reference = reference.of(stage, &micro, &policy)?;
            figures.add(objective, &policy, &reference);
            let loss = LossSum::of(objective.losses(&policy, &reference));
            loss_sum += loss.value();
            gradients.accumulate(&model, || loss.sum.backward());
        }

        // Replicas add up what each found in its share of the rows; from here on all do the same.
        let loss = replicas.sum(loss_sum)? / n_pairs as f64;
        figures.add_up(replicas)?;
        checks.loss(loss, place)?;
        gradients.all_reduce(replicas, device)?;

        // The norm is that of the mean loss; a non-finite one is an error, so it never reaches the weights.
        let norm = gradients.norm(n_pairs, place)?;
        let lr = train::lr(&stage.keys.schedule, stage.keys.optimizer.lr, step, stage.max_steps);
        checks.gradients(&gradients);
        let grad_norm = norm.value();
        model = optimizer.step(model, gradients, norm, lr);
        checks.updated(&model, lr, place)?;
        compare_replicas(replicas, &model, step + 1)?;

        let tokens = batch.lengths().into_iter().sum::<usize>() as u64;
        run.log_step(StepReport { loss, grad_norm, lr, tokens, extra: figures.of_step() })?;
        if run.eval_due() && stage.dataset.n_eval_rows() > 0 {
            run.log_eval(validation::validation(
                stage,
                objective,
                &model,
                &reference,
                run.step(),
                device,
            )?)?;
        }
        run.save_if_due(|dir| write_checkpoint(dir, &save_format, &model, &optimizer))?;
        if run.stop_requested() && !run.is_done() {
            return Ok(Outcome::Stopped { step: run.step() });
        }
    }

    let last_eval = run.state().last_eval.clone();
    if replicas.is_leader() {
        write_model(&model_dir, &save_format, &model, stage)?;
    }
    Ok(Outcome::Finished(run.finish(json!(last_eval))?))
}

/// What the starting weights say of each pair: read from the stage's folder, or asked now and kept there.
fn precompute_ref_logprobs(
    plan: &Plan,
    stage: &StagePlan,
    key: &str,
    run_dir: &RunDir,
    run: &mut StageRun<'_>,
    model: &CausalLm,
    device: &Device,
) -> Result<Reference> {
    let dir = run.dir().path().join(REFERENCE_DIR);
    match Reference::load(&dir, key) {
        Ok(Some(reference)) => return Ok(reference),
        Ok(None) => {}
        Err(reason) => {
            run.warn(format!("{reason}; the reference is asked anew"));
            fsio::remove_dir_all(&dir)?;
        }
    }
    let asked = Instant::now();
    let reference = if run.step() == 0 {
        Reference::ask(stage, model, device)?
    } else {
        // The weights at hand have moved; those that the stage started from are read for this alone.
        let Weights { model, .. } = first_weights::<CausalLm>(
            plan,
            ModelSource::of(stage),
            run_dir,
            &mut BaseModelCache::new(device),
        )?;
        Reference::ask(stage, &model, device)?
    };
    reference.save(&dir, key)?;
    let (n_pairs, seconds) = (reference.n_texts() / 2, asked.elapsed().as_secs_f64());
    run.note(format!("asked the starting weights about {n_pairs} pairs in {seconds:.1} s"));
    Ok(reference)
}
