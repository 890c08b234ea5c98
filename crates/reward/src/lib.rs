//! Reward models: one score for each text, trained so that the chosen text of a pair scores above the rejected one
//! (Bradley–Terry; Ouyang et al. 2022, equation 1). The whole loop stands in [`run`].
//!
//! It deliberately knows nothing of files, arguments or printing: a [`Context`] brings the plan, the folder and whoever
//! watches.
//!
//! Shape legend: p pairs, b texts (2 × p: chosen and rejected in turn).

mod error;

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use loss::{LossSum, pairwise_reward, reward_centering};
use model::ScalarModel;
use recipe::RewardSection;
use serde_json::json;
use train::{
    Context, FirstLoss, Gradients, Outcome, StepPlace, StepReport, WeightSource, compare_replicas,
    start_or_resume_with, write_checkpoint, write_model,
};

pub use error::{Error, Result};

/// Trains from the newest checkpoint, or from the stage's start, to the last step.
pub fn run(context: Context<'_>, section: &RewardSection) -> Result<Outcome> {
    let (stage, run_dir, device) = (context.stage, context.run_dir, context.device);
    let replicas = context.replicas;
    let objective = Objective::of(section);
    let model_dir = run_dir.stage(&stage.name).model();
    let first_margins = stage.dataset.batch(0).margins;
    let begun = start_or_resume_with::<ScalarModel>(context, |origin| match origin {
        // It has its own opinion already.
        WeightSource::Trained => FirstLoss::Unknown,
        // Equal scores, about.
        WeightSource::New | WeightSource::NewHead => {
            FirstLoss::Near { loss: objective.equal_scores(&first_margins) }
        }
    })?;
    let train::StageState {
        mut run,
        mut model,
        mut optimizer,
        names,
        mut checks,
        save_format,
        dropout,
    } = begun;

    while !run.is_done() {
        // A batch is a pure function of the seed and the step: there is no loader to resume.
        let step = run.step();
        let batch = stage.dataset.batch(step);
        let n_pairs = batch.rows as u64 / 2;
        let place = StepPlace { step: step + 1, samples: &batch.samples };
        checks.targets(n_pairs, place)?;

        // The loss of a step is one sum over all its pairs, divided once by their number. A pair is never divided, and
        // the padding that all texts of a micro-batch share is left out: it changes no score.
        let mut gradients = Gradients::new(&names);
        let mut loss_sum = 0.0;
        let mut judged = evaluate::PairMetrics::default();
        for (idx, micro) in batch.micro_batches_of(replicas.share(), 2, 2 * stage.micro_batch) {
            dropout.draw(step, idx);
            let scores_b = evaluate::text_scores(&model, &micro.trimmed(), device);
            for pair in scores_b.to_data().iter::<f64>().collect::<Vec<_>>().chunks_exact(2) {
                judged.add(pair[0], pair[1]);
            }
            let loss = objective.loss(scores_b, &micro.margins);
            loss_sum += loss.value();
            gradients.accumulate(&model, || loss.sum.backward());
        }

        // Replicas add up what each found in its share of the rows; from here on all do the same.
        let loss = replicas.sum(loss_sum)? / n_pairs as f64;
        judged.add_up(replicas)?;
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
        let extra = BTreeMap::from([
            ("accuracy".to_owned(), judged.accuracy()),
            ("margin".to_owned(), judged.margin()),
        ]);
        run.log_step(StepReport { loss, grad_norm, lr, tokens, extra })?;
        if run.eval_due() && stage.dataset.n_eval_rows() > 0 {
            run.log_eval(evaluate::held_out_pairs(stage, &model, run.step(), device)?)?;
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

/// What is asked of the scores of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Objective {
    /// By how much the chosen text must be ahead.
    pub margin: f64,
    /// The factor of the squared sum of a pair's scores.
    pub centering: f64,
}

impl Objective {
    /// That of a recipe's section.
    pub fn of(section: &RewardSection) -> Self {
        Self { margin: section.margin, centering: section.centering }
    }

    /// The mean loss of pairs with equal scores: −ln σ(−m).
    pub fn equal_scores(self, margins: &[f32]) -> f64 {
        let loss = |margin: f64| (self.margin + margin).exp().ln_1p();
        if margins.is_empty() {
            return loss(0.0);
        }
        margins.iter().map(|margin| loss(f64::from(*margin))).sum::<f64>() / margins.len() as f64
    }

    /// What each pair asks in all; None where that is nothing.
    fn margins(self, of_pairs: &[f32], n_pairs: usize) -> Option<Vec<f32>> {
        if of_pairs.is_empty() {
            return (self.margin > 0.0).then(|| vec![self.margin as f32; n_pairs]);
        }
        Some(of_pairs.iter().map(|margin| margin + self.margin as f32).collect())
    }

    /// The loss of scores that are chosen and rejected in turn, `[b]`; its terms are the pairs. `margins` has what each
    /// pair asks on top of the section's own margin (Touvron et al. 2023, "Llama 2", equation 2), or nothing.
    pub fn loss(self, scores_b: Tensor<1>, margins: &[f32]) -> LossSum {
        let n_pairs = scores_b.dims()[0] / 2;
        let scores_p2 = scores_b.reshape([n_pairs, 2]);
        let side_p =
            |idx: usize| scores_p2.clone().slice([0..n_pairs, idx..idx + 1]).reshape([n_pairs]);
        let (chosen_p, rejected_p) = (side_p(0), side_p(1));
        let margin_p = self
            .margins(margins, n_pairs)
            .map(|margins| Tensor::<1>::from_data(margins.as_slice(), &chosen_p.device()));
        let pairs = pairwise_reward(chosen_p.clone(), rejected_p.clone(), margin_p);
        if self.centering == 0.0 {
            return pairs;
        }
        let centred = reward_centering(chosen_p, rejected_p).sum.mul_scalar(self.centering);
        LossSum { sum: pairs.sum + centred, count: pairs.count }
    }
}
