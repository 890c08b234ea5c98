//! Pretraining: learn to continue documents, every token a target. The whole loop stands in [`run`].
//!
//! It deliberately knows nothing of files, arguments or printing: a [`Context`] brings the plan, the folder and whoever
//! watches.
//!
//! Shape legend: b batch, t time, n positions (b × t), d model width.

mod error;
mod sample;

use std::collections::BTreeMap;

use burn::tensor::{Int, Tensor};
use nn::TokenBatch;
use serde_json::json;
use train::{
    Context, Gradients, Outcome, StepPlace, StepReport, compare_replicas, start_or_resume,
    write_checkpoint, write_model,
};

pub use error::{Error, Result};

/// Trains from the newest checkpoint, or from the stage's start, to the last step.
pub fn run(context: Context<'_>) -> Result<Outcome> {
    let (plan, stage, device, replicas) =
        (context.plan, context.stage, context.device, context.replicas);
    let model_dir = context.run_dir.stage(&stage.name).model();
    let train::StageState {
        mut run,
        mut model,
        mut optimizer,
        names,
        mut checks,
        save_format,
        dropout,
    } = start_or_resume(context)?;

    while !run.is_done() {
        // A batch is a pure function of the seed and the step: there is no loader to resume.
        let step = run.step();
        let batch = stage.dataset.batch(step);
        let place = StepPlace { step: step + 1, samples: &batch.samples };
        checks.targets(batch.n_targets as u64, place)?;

        // The loss of a step is one sum over all its targets, divided once by their number; micro-batches bound memory
        // and change nothing else.
        let mut gradients = Gradients::new(&names);
        let mut loss_sum = 0.0;
        for (idx, micro) in batch.micro_batches_of(replicas.share(), 1, stage.micro_batch) {
            dropout.draw(step, idx);
            let (b, t) = (micro.rows, micro.sequence_length);
            let tokens =
                TokenBatch::new(&micro.ids, &micro.positions, &micro.segments, b, t, device);
            let targets_n = Tensor::<1, Int>::from_data(micro.targets.as_slice(), device);
            let output = model.forward(&tokens);
            let count = micro.n_targets as u64;
            let loss =
                loss::cross_entropy(output.hidden_nd(), model.head_weight(), targets_n, count)
                    .with_aux_loss(output.aux_loss, count);
            loss_sum += loss.value();
            gradients.accumulate(&model, || loss.sum.backward());
        }

        // Replicas add up what each found in its share of the rows; from here on all do the same.
        let loss = replicas.sum(loss_sum)? / batch.n_targets as f64;
        checks.loss(loss, place)?;
        gradients.all_reduce(replicas, device)?;

        // The norm is that of the mean loss; a non-finite one is an error, so it never reaches the weights.
        let norm = gradients.norm(batch.n_targets as u64, place)?;
        let lr = train::lr(&stage.keys.schedule, stage.keys.optimizer.lr, step, stage.max_steps);
        checks.gradients(&gradients);
        let grad_norm = norm.value();
        model = optimizer.step(model, gradients, norm, lr);
        checks.updated(&model, lr, place)?;
        compare_replicas(replicas, &model, step + 1)?;

        let tokens = batch.segments.iter().filter(|segment| **segment >= 0).count() as u64;
        run.log_step(StepReport { loss, grad_norm, lr, tokens, extra: BTreeMap::new() })?;
        if run.eval_due() && stage.dataset.n_eval_rows() > 0 {
            run.log_eval(evaluate::validation(stage, &model, run.step(), device)?)?;
            run.log_sample(sample::continue_nothing(plan, stage, &model, run.step())?)?;
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
