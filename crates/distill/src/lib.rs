//! Distillation: a student is trained on the next-token distributions of a teacher, which stays frozen (Hinton et al. 2015;
//! Agarwal et al. 2024).
//!
//! Shape legend: b batch, t time, n positions (b × t), m positions with a target, d model width, v vocabulary.

mod samples;
mod teacher;
mod validation;

use burn::tensor::{Device, Int, Tensor, TensorData};
use data::Batch;
use loss::{Distillation, LossSum};
use model::{Auxiliary, CausalLm};
use nn::TokenBatch;
use plan::{DistillPlan, Plan, StagePlan};
use train::{
    Collective, Context, FirstLoss, Outcome, StageState, StepPlace, apply_update, finish_stage,
    start_or_resume_with, write_checkpoint,
};

pub use evaluate::{Error, Result};
pub use samples::sampled;
pub use teacher::Teacher;

/// Trains from the newest checkpoint, or from the student's initial weights, to the last step.
pub fn run(context: Context<'_>, distill: &DistillPlan) -> Result<Outcome> {
    let (plan, stage, run_dir, device) =
        (context.plan, context.stage, context.run_dir, context.device);
    let replicas = context.replicas;
    let divergence = divergence(distill);
    let teacher = Teacher::open(stage, distill, run_dir, device)?;
    let state = start_or_resume_with::<CausalLm>(context, |_| FirstLoss::Unknown)?;
    let StageState { mut run, mut model, mut learner, save_format, dropout } = state;

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
            dropout.draw(step, *idx);
            let Some((loss, auxiliary)) = loss_of(&divergence, &model, &teacher, micro, device)
            else {
                continue;
            };
            sums.expert_load.add(&auxiliary.expert_load);
            let n_targets = loss.count;
            let loss = loss.with_aux_loss(auxiliary.loss, n_targets);
            sums.loss += loss.value();
            sums.gradients.accumulate(&model, || loss.sum.backward());
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
                || validation::validate(stage, &divergence, &model, &teacher, step, device);
            run.log_eval(evaluate::evaluation(plan, stage, &model, step, validate)?)?;
        }
        run.save_if_due(|dir| write_checkpoint(dir, &save_format, &model, &learner))?;
    }
    Ok(finish_stage(run, model, &save_format, &learner)?)
}

/// The divergence of a recipe's section. `loss` has the formula and its source.
pub fn divergence(distill: &DistillPlan) -> Distillation {
    let section = &distill.section;
    Distillation { beta: section.beta, temperature: section.temperature }
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

/// The summed divergence of a batch at its targets, for training and validation, with the student's own loss and the load of its experts; `None` for a
/// batch without targets.
pub fn loss_of(
    divergence: &Distillation,
    student: &CausalLm,
    teacher: &Teacher,
    batch: &Batch,
    device: &Device,
) -> Option<(LossSum, Auxiliary)> {
    if batch.n_targets == 0 {
        return None;
    }
    let batch = &batch.trimmed();
    let teacher_mv = teacher.logits(batch, device);
    let (b, t) = (batch.rows, batch.sequence_length);
    let tokens = TokenBatch::new(&batch.ids, &batch.positions, &batch.segments, b, t, device);
    let output = student.forward(&tokens);
    let student_mv = student.logits(at_targets(output.hidden_nd(), batch));
    let [m, v] = student_mv.dims();
    // Embeddings may have more rows than the tokenizer has tokens.
    let n_ids = v.min(teacher_mv.dims()[1]);
    let of_ids = |logits_mv: Tensor<2>| logits_mv.slice([0..m, 0..n_ids]);
    let loss = divergence.loss(of_ids(student_mv), &of_ids(teacher_mv));
    Some((loss, output.auxiliary()))
}

/// The rows of positions with a target.
fn at_targets(hidden_nd: Tensor<2>, batch: &Batch) -> Tensor<2> {
    let targets = batch.targets.iter().enumerate().filter(|(_, target)| **target >= 0);
    let positions: Vec<i64> = targets.map(|(at, _)| at as i64).collect();
    let m = positions.len();
    let positions = TensorData::new(positions, [m]);
    let positions_m = Tensor::<1, Int>::from_data(positions, &hidden_nd.device());
    hidden_nd.select(0, positions_m)
}
