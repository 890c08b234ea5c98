//! Distillation: a student is trained on the next-token distributions of a teacher, which stays frozen (Hinton et al. 2015;
//! Agarwal et al. 2024).
//!
//! The loss of a micro-batch is in [`Objective`], the teacher's distributions in [`Teaching`].

mod micro_batch;
mod samples;
mod saved_top;
mod targets;
mod teacher;
mod teaching;
mod validation;

use data::Batch;
use model::CausalLm;
use plan::{DistillPlan, Plan, StagePlan};
use train::{
    Collective, Context, FirstLoss, Outcome, StageState, StepPlace, apply_update, finish_stage,
    start_or_resume_with, write_checkpoint,
};

pub use evaluate::{Error, Result};
pub use micro_batch::{MicroBatchLoss, Objective, TeacherTargets};
pub use samples::sampled;
pub use saved_top::TEACHER_DIR;
pub use teacher::Teacher;
pub use teaching::{Teaching, TeachingInputs};

/// Trains from the newest checkpoint, or from the student's initial weights, to the last step.
pub fn run(context: Context<'_>, distill: &DistillPlan) -> Result<Outcome> {
    let (plan, stage, run_dir, device) =
        (context.plan, context.stage, context.run_dir, context.device);
    let (replicas, stop) = (context.replicas, context.stop.clone());
    let objective = Objective::of(stage, distill);
    let state = start_or_resume_with::<CausalLm>(context, |_| FirstLoss::Unknown)?;
    let StageState { mut run, mut model, mut learner, save_format, dropout } = state;
    let inputs = TeachingInputs { plan, stage, distill, run_dir, device };
    let Some(teaching) = Teaching::open(inputs, &mut run, replicas, &stop)? else {
        return Ok(Outcome::Stopped { step: run.step() });
    };
    if run.first_eval_due() {
        let model = learner.evaluated(&model);
        let row = validation::validate(stage, &objective, &model, &teaching, 0, device)?;
        run.log_first_eval(row)?;
    }
    evaluate::log_first_samples(&mut run, plan, stage, || learner.evaluated(&model))?;

    while run.has_next_step() {
        // A batch is a pure function of the seed and the step, so no data loader state is saved. The student's own answers
        // are a function of its weights besides.
        let step = run.step();
        let batch = stage.dataset.batch(step);
        let place = StepPlace { step: step + 1, samples: &batch.samples };
        let is_on_policy = samples::is_on_policy(plan, stage, distill.section.on_policy, step);
        let part = if is_on_policy {
            Part::sampled(plan, stage, distill, &model, &batch, step, replicas)?
        } else {
            Part::of_data(&batch, stage, replicas)
        };
        learner.checks.targets(part.n_targets, place)?;

        // The loss of a step is one sum over all its targets, divided once by their number.
        let mut sums = learner.begin_step(part.n_targets, place)?;
        for (idx, micro) in &part.micro_batches {
            if micro.n_targets == 0 {
                continue;
            }
            dropout.draw(step, *idx);
            let micro = micro.trimmed();
            let targets = teaching.targets(&micro)?;
            let loss = objective.accumulate(&model, &targets, &micro, device, &mut sums.gradients);
            sums.expert_load.add(&loss.auxiliary.expert_load);
            sums.loss += loss.sum;
        }

        let lr = train::lr(&stage.keys.schedule, stage.keys.optimizer.lr, step, stage.max_steps);
        let report;
        (model, report) = apply_update(model, &mut learner, sums, lr)?;
        let on_policy = f64::from(u8::from(is_on_policy));
        let extra = (distill.section.on_policy > 0.0).then(|| ("on_policy".to_owned(), on_policy));
        run.log_step(report.with(part.n_tokens, extra))?;

        if run.eval_due() {
            let (step, model) = (run.step(), learner.evaluated(&model));
            let validate =
                || validation::validate(stage, &objective, &model, &teaching, step, device);
            run.log_eval(evaluate::evaluation(plan, stage, &model, step, validate)?)?;
        }
        evaluate::log_samples(&mut run, plan, stage, || learner.evaluated(&model))?;
        run.save_if_due(|dir| write_checkpoint(dir, &save_format, &model, &learner))?;
    }
    Ok(finish_stage(run, model, &save_format, &learner)?)
}

/// A replica's part of a step.
struct Part {
    /// Its rows, each micro-batch with its index.
    micro_batches: Vec<(usize, Batch)>,
    /// Targets of the whole step.
    n_targets: u64,
    /// Tokens of the whole step.
    n_tokens: u64,
}

impl Part {
    /// The rows of the data.
    fn of_data(batch: &Batch, stage: &StagePlan, replicas: &dyn Collective) -> Self {
        let micro_batches = batch.micro_batches_of(replicas.share(), 1, stage.micro_batch);
        Self {
            micro_batches: micro_batches.collect(),
            n_targets: batch.n_targets as u64,
            n_tokens: n_tokens(batch),
        }
    }

    /// The prompts of the data with the student's answers.
    fn sampled(
        plan: &Plan,
        stage: &StagePlan,
        distill: &DistillPlan,
        student: &CausalLm,
        batch: &Batch,
        step: u64,
        replicas: &dyn Collective,
    ) -> Result<Self> {
        let share = replicas.share();
        let own = samples::sampled(plan, stage, distill, student, batch, step, share)?;
        let mut sums = [own.n_targets as f64, n_tokens(&own) as f64];
        replicas.sums(&mut sums)?;
        let micro_batches = own.micro_batches(stage.micro_batch).enumerate().collect();
        Ok(Self { micro_batches, n_targets: sums[0] as u64, n_tokens: sums[1] as u64 })
    }
}

fn n_tokens(batch: &Batch) -> u64 {
    batch.segments.iter().filter(|segment| **segment >= 0).count() as u64
}
