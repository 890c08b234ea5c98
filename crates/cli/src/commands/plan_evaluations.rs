//! Running time of a stage's evaluations on validation data, from what its probe measured.

use arch::{HeadOutput, ModelConfig};
use plan::{DistillPlan, StagePlan, Work};

/// Evaluations of a stage: before the first step, on the schedule, and after the last step.
pub(super) fn n_evaluations(stage: &StagePlan) -> u64 {
    let Some(eval) = stage.keys.eval.as_ref() else { return 0 };
    if stage.dataset.n_eval_rows() == 0 {
        return 0;
    }
    n_in_steps(stage.max_steps, eval.every_steps)
}

fn n_in_steps(last: u64, every: Option<u64>) -> u64 {
    let scheduled = |every: u64| last / every + u64::from(!last.is_multiple_of(every));
    1 + every.map_or(1, |every| scheduled(every.max(1)))
}

/// Rows, or prompts, of one evaluation.
fn rows(stage: &StagePlan) -> u64 {
    let n_rows = stage.dataset.n_eval_rows();
    let max_rows = stage.keys.eval.as_ref().and_then(|eval| eval.max_rows);
    max_rows.unwrap_or(n_rows).min(n_rows)
}

/// Seconds of all evaluations, without those of tasks. `per_row` is the time of a forward and backward pass of a row, and
/// `per_answer` that of sampling a completion.
pub(super) fn seconds(stage: &StagePlan, per_row: f64, per_answer: f64) -> f64 {
    let n_rows = rows(stage);
    // A forward pass takes a third of forward and backward.
    let forward = per_row / 3.0;
    let one = match stage.kind.work() {
        Work::Rows { distill: Some(distill), .. } => {
            // The student reads a row once for the divergence and once for the metrics of next-token prediction.
            let student = 2.0 * forward_flops(stage, &stage.config);
            let forward = student + teacher_flops(stage, distill);
            n_rows as f64 * per_row * forward / probed_flops(stage, distill)
        }
        Work::Rows { n_kl_rows, .. } => {
            let n_trained = (stage.dataset.n_run_rows() * stage.dataset.batch_rows()).max(1);
            // KTO estimates a divergence from as many rows more.
            let more = n_kl_rows as f64 / n_trained as f64;
            (n_rows * stage.dataset.batch_rows()) as f64 * (1.0 + more) * forward
        }
        Work::Groups(_) => answers(n_rows) as f64 * per_answer,
        // Sampled, then scored by the policy, the reference, the value model and the reward models.
        Work::Rollouts(ppo) => {
            let n_passes = 4 + ppo.rewards.models.len();
            answers(n_rows) as f64 * forward * n_passes as f64
        }
    };
    n_evaluations(stage) as f64 * one
}

/// Operations of what a distillation's probe computes for a row: the student's passes, and the teacher's where it is asked in every
/// step.
pub(super) fn probed_flops(stage: &StagePlan, distill: &DistillPlan) -> f64 {
    let length = stage.sequence_length as u64;
    stage.config.training_flops(1, length, HeadOutput::CrossEntropy) + teacher_flops(stage, distill)
}

/// Operations of the teacher for a row. Saved tokens are computed once, before training.
fn teacher_flops(stage: &StagePlan, distill: &DistillPlan) -> f64 {
    match distill.section.top_k {
        Some(_) => 0.0,
        None => forward_flops(stage, &distill.teacher_config),
    }
}

fn forward_flops(stage: &StagePlan, config: &ModelConfig) -> f64 {
    config.forward_flops(1, stage.sequence_length as u64, HeadOutput::Distributions)
}

/// Completions of `n` validation prompts.
fn answers(n: u64) -> u64 {
    n * (rl::VALIDATION_ANSWERS as u64).div_ceil(n.max(1))
}

#[cfg(test)]
mod tests {
    use super::n_in_steps;

    #[test]
    fn evaluations_are_counted_before_during_and_after_training() {
        let counts = [(100, Some(25)), (101, Some(25)), (20, Some(25)), (20, None)];
        assert_eq!(counts.map(|(last, every)| n_in_steps(last, every)), [5, 6, 2, 2]);
    }
}
