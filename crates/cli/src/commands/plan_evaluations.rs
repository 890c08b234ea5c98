//! Running time of a stage's evaluations on validation data, from what its probe measured.

use arch::HeadOutput;
use plan::{StagePlan, Work};

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
            let length = stage.sequence_length as u64;
            let flops = |config: &arch::ModelConfig| {
                config.forward_flops(1, length, HeadOutput::Distributions)
            };
            let student = flops(&stage.config);
            // Saved tokens of the teacher are computed once, before training.
            let teacher =
                if distill.section.top_k.is_some() { 0.0 } else { flops(&distill.teacher_config) };
            let probed = stage.config.training_flops(1, length, HeadOutput::CrossEntropy);
            n_rows as f64 * per_row * (student + teacher) / probed
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
