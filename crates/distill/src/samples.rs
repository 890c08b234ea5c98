//! The student's own answers to the prompts of a step.

use data::{Batch, Share};
use generate::Settings;
use model::CausalLm;
use plan::{DistillPlan, Plan, StagePlan};
use seed::{Purpose, Rng};

use crate::Result;

/// Whether a step trains on the student's answers: a function of the run's seed and the step.
pub(crate) fn is_on_policy(plan: &Plan, stage: &StagePlan, share: f64, step: u64) -> bool {
    let key = seed::derive(plan.seed, &stage.name, Purpose::OnPolicy, step, 0);
    Rng::new(key).f64() < share
}

/// Replaces the last answer of each sample of a replica's share of `batch` by one that the student samples at temperature 1.
///
/// A row of the result is one prompt with its answer, whose tokens are targets. An answer ends with an end token, at
/// `max_new_tokens`, or where the row is full.
pub fn sampled(
    plan: &Plan,
    stage: &StagePlan,
    distill: &DistillPlan,
    student: &CausalLm,
    batch: &Batch,
    step: u64,
    share: Share,
) -> Result<Batch> {
    let t = stage.sequence_length;
    let prompts = prompts(batch, t);
    let mine = share.of(prompts.len());
    let first_prompt = mine.start;
    let (samples, prompts): (Vec<u64>, Vec<Vec<u32>>) =
        prompts.into_iter().skip(mine.start).take(mine.len()).unzip();
    if prompts.is_empty() {
        return Ok(Batch::default());
    }
    let eos_ids = stage.tokenizer.eos_ids();
    let settings = Settings {
        max_new_tokens: distill.section.max_new_tokens,
        eos_ids,
        vocab_size: Some(stage.tokenizer.vocab_size()),
        first_prompt,
        ..Settings::default()
    };
    let seed = seed::derive(plan.seed, &stage.name, Purpose::OnPolicy, step, 1);
    let completions = generate::generate(student, &prompts, &settings, seed, |_| {})?;
    let answers: Vec<Vec<u32>> = completions.into_iter().map(|found| found.tokens).collect();
    let pad = stage.tokenizer.pad().unwrap_or(0);
    Ok(Batch::of_answers(&samples, &prompts, &answers, t, pad))
}

/// The prompt of the last answer of each sample, with the sample's index. Samples without targets have none.
fn prompts(batch: &Batch, t: usize) -> Vec<(u64, Vec<u32>)> {
    let mut prompts = Vec::new();
    for row in 0..batch.rows {
        let range = row * t..(row + 1) * t;
        let of = |column: &[i32]| column.get(range.clone()).unwrap_or_default().to_vec();
        let (segments, targets) = (of(&batch.segments), of(&batch.targets));
        let ids = batch.ids.get(range.clone()).unwrap_or_default();
        let bounds = (batch.sample_starts.get(row), batch.sample_starts.get(row + 1));
        let (Some(from), Some(to)) = bounds else { continue };
        for (idx, sample) in batch.samples.get(*from..*to).unwrap_or_default().iter().enumerate() {
            let is_own = |at: &usize| segments.get(*at) == Some(&(idx as i32));
            let positions: Vec<usize> = (0..t).filter(is_own).collect();
            let is_target = |at: usize| targets.get(at).is_some_and(|target| *target >= 0);
            // The position that predicts the first token of the last answer ends its prompt.
            let Some(last) = positions.iter().rposition(|at| is_target(*at)) else { continue };
            let before = positions.iter().take(last).rposition(|at| !is_target(*at));
            let first = before.map_or(0, |before| before + 1);
            let prompt = positions.iter().take(first + 1).filter_map(|at| ids.get(*at)).copied();
            prompts.push((*sample, prompt.collect()));
        }
    }
    prompts
}
