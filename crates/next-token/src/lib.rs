//! The training loop of language models on the next token, shared by pretraining and supervised fine-tuning.
//!
//! The two differ in their data, whose batches carry the targets.
//!
//! Shape legend: b batch, t time, n positions (b × t), d model width.

use burn::tensor::{Int, Tensor};
use nn::TokenBatch;
use train::{
    Context, Outcome, StageState, StepPlace, apply_update, finish_stage, start_or_resume,
    write_checkpoint,
};

pub use evaluate::{Error, Result};

/// Trains on the next token, from the newest checkpoint or from the stage's initial weights, to the last step.
pub fn run(context: Context<'_>) -> Result<Outcome> {
    let (plan, stage, device, replicas) =
        (context.plan, context.stage, context.device, context.replicas);
    let StageState { mut run, mut model, mut learner, save_format, dropout } =
        start_or_resume(context)?;
    if run.first_eval_due() {
        let model = learner.evaluated(&model);
        run.log_first_eval(evaluate::validation(stage, &model, 0, device)?)?;
    }
    evaluate::log_first_samples(&mut run, plan, stage, || learner.evaluated(&model))?;

    while run.has_next_step() {
        // A batch is a pure function of the seed and the step, so no data loader state is saved.
        let step = run.step();
        let batch = stage.dataset.batch(step);
        let place = StepPlace { step: step + 1, samples: &batch.samples };

        // The loss of a step is one sum over all its targets, divided once by their number.
        let mut sums = learner.begin_step(batch.n_targets as u64, place)?;
        let mut n_correct = 0.0;
        for (idx, micro) in batch.micro_batches_of(replicas.share(), 1, stage.micro_batch) {
            dropout.draw(step, idx);
            let (b, t) = (micro.rows, micro.sequence_length);
            let tokens =
                TokenBatch::new(&micro.ids, &micro.positions, &micro.segments, b, t, device);
            let targets_n = Tensor::<1, Int>::from_data(micro.targets.as_slice(), device);
            let output = model.forward(&tokens);
            let count = micro.n_targets as u64;
            sums.expert_load.add(&output.auxiliary().expert_load);
            let predicted = loss::next_token(output.hidden_nd(), model.head(), targets_n, count);
            n_correct += f64::from(predicted.n_correct.into_scalar::<f32>());
            let loss = predicted.loss.with_aux_loss(output.aux_loss, count);
            sums.loss += loss.value();
            sums.gradients.accumulate(&model, || loss.sum.backward());
        }

        let lr = train::lr(&stage.keys.schedule, stage.keys.optimizer.lr, step, stage.max_steps);
        let report;
        (model, report) = apply_update(model, &mut learner, sums, lr)?;
        let tokens = batch.segments.iter().filter(|segment| **segment >= 0).count() as u64;
        let accuracy = replicas.sum(n_correct)? / batch.n_targets as f64;
        run.log_step(report.with(tokens, [("mean_token_accuracy".to_owned(), accuracy)]))?;

        if run.eval_due() {
            let model = learner.evaluated(&model);
            let step = run.step();
            let validation = || evaluate::validation(stage, &model, step, device);
            run.log_eval(evaluate::evaluation(plan, stage, &model, step, validation)?)?;
        }
        evaluate::log_samples(&mut run, plan, stage, || learner.evaluated(&model))?;
        run.save_if_due(|dir| write_checkpoint(dir, &save_format, &model, &learner))?;
    }
    Ok(finish_stage(run, model, &save_format, &learner)?)
}
