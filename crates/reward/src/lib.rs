//! Reward models: a scalar score for each text, trained so that the chosen text of a pair scores above the rejected one
//! (Bradley–Terry; Ouyang et al. 2022, equation 1).
//!
//! Shape legend: b texts, chosen and rejected alternating.

mod objective;

use std::path::Path;

use model::ScalarModel;
use recipe::RewardSection;
use report::{CALIBRATION_FILE, Calibration, CalibrationBin};
use train::{
    Context, FirstLoss, Outcome, StageState, StepPlace, WeightSource, apply_update, finish_stage,
    start_or_resume_with, write_checkpoint,
};

pub use evaluate::{Error, Result};
pub use objective::Objective;

/// Trains from the newest checkpoint, or from the stage's initial weights, to the last step.
pub fn run(context: Context<'_>, section: &RewardSection) -> Result<Outcome> {
    let (stage, device, replicas) = (context.stage, context.device, context.replicas);
    let objective = Objective::of(section);
    let first_margins = stage.dataset.batch(0).margins;
    let state = start_or_resume_with::<ScalarModel>(context, |source| match source {
        WeightSource::Trained => FirstLoss::Unknown,
        // A new head gives all texts about the same score.
        WeightSource::New | WeightSource::NewHead => {
            FirstLoss::Near { loss: objective.loss_of_equal_scores(&first_margins) }
        }
    })?;
    let StageState { mut run, mut model, mut learner, save_format, dropout } = state;
    if run.first_eval_due() {
        let model = learner.evaluated(&model);
        run.log_first_eval(evaluate::validation_pairs(stage, &model, 0, device)?)?;
    }

    while run.has_next_step() {
        let step = run.step();
        let batch = stage.dataset.batch(step);
        let place = StepPlace { step: step + 1, samples: &batch.samples };

        // The loss of a step is one sum over all its pairs, divided once by their number. Pairs are never split, and padding
        // that all texts of a micro-batch share is dropped, which changes no score.
        let mut sums = learner.begin_step(batch.rows as u64 / 2, place)?;
        let mut metrics = evaluate::PairMetrics::default();
        for (idx, micro) in batch.micro_batches_of(replicas.share(), 2, 2 * stage.micro_batch) {
            dropout.draw(step, idx);
            let (scores_b, auxiliary) =
                evaluate::text_scores_and_auxiliary(&model, &micro.trimmed(), device);
            sums.expert_load.add(&auxiliary.expert_load);
            for pair in scores_b.to_data().iter::<f64>().collect::<Vec<_>>().chunks_exact(2) {
                metrics.add(pair[0], pair[1]);
            }
            let loss = objective.loss(scores_b, &micro.margins);
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
        let extra = [("accuracy", metrics.accuracy()), ("margin", metrics.margin())];
        let extra = extra.map(|(name, value)| (name.to_owned(), value));
        run.log_step(report.with(tokens, extra))?;

        if run.eval_due() {
            let model = learner.evaluated(&model);
            let (row, pairs) = evaluate::evaluation_of_scores(stage, &model, run.step(), device)?;
            if let Some(pairs) = &pairs {
                run.check_dir()?;
                save_calibration(run.dir().path(), run.step(), pairs)?;
            }
            run.log_eval(row)?;
        }
        run.save_if_due(|dir| write_checkpoint(dir, &save_format, &model, &learner))?;
    }
    Ok(finish_stage(run, model, &save_format, &learner)?)
}

/// Saves how often the model's choices are right by their probability, for the report of the run.
fn save_calibration(dir: &Path, step: u64, pairs: &evaluate::PairMetrics) -> Result<()> {
    let bins = pairs.bins().iter().map(|(n, n_right, confidence_sum)| CalibrationBin {
        n: *n,
        n_right: *n_right,
        confidence_sum: *confidence_sum,
    });
    let calibration = Calibration { step, bins: bins.collect() };
    // Numbers under string keys always serialize.
    let text = serde_json::to_string(&calibration).unwrap_or_default();
    Ok(fsio::write_atomic(dir.join(CALIBRATION_FILE), text + "\n").map_err(train::Error::from)?)
}
