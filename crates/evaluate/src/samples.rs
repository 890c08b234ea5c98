//! Samples that a stage logs: answers to prompts, on the schedule of its evaluations.
//!
//! They change no weights. Those of the recipe's prompts are greedy by default; others have a random stream of their own.

use generate::{Sampling, Settings};
use model::CausalLm;
use plan::{Plan, StagePlan};
use seed::Purpose;
use train::{SampleRow, StageRun};

use crate::Result;

/// Number of tokens of an answer to a prompt of the stage's own.
const MAX_NEW_TOKENS: usize = 48;

/// Logs answers to the prompts of `sample_prompts` before the first step.
pub fn log_first_samples(
    run: &mut StageRun<'_>,
    plan: &Plan,
    stage: &StagePlan,
    model: impl FnOnce() -> CausalLm,
) -> Result<()> {
    if run.first_samples_due() {
        log(run, plan, stage, &model())?;
    }
    Ok(())
}

/// Logs answers to the prompts of the stage's samples if they are due after the latest update; `model` has the weights that
/// are evaluated.
pub fn log_samples(
    run: &mut StageRun<'_>,
    plan: &Plan,
    stage: &StagePlan,
    model: impl FnOnce() -> CausalLm,
) -> Result<()> {
    if run.samples_due() {
        log(run, plan, stage, &model())?;
    }
    Ok(())
}

fn log(run: &mut StageRun<'_>, plan: &Plan, stage: &StagePlan, model: &CausalLm) -> Result<()> {
    for row in samples(plan, stage, model, run.step())? {
        run.log_sample(row)?;
    }
    Ok(())
}

/// Answers of the model as it is after `step` updates.
pub fn samples(
    plan: &Plan,
    stage: &StagePlan,
    model: &CausalLm,
    step: u64,
) -> Result<Vec<SampleRow>> {
    if stage.sample_prompts.prompts.is_empty() {
        return Ok(Vec::new());
    }
    let (keys, tokenizer, of_stage) = (&stage.keys, &stage.tokenizer, &stage.sample_prompts);
    let mut settings = Settings {
        max_new_tokens: MAX_NEW_TOKENS,
        eos_ids: tokenizer.eos_ids(),
        vocab_size: Some(tokenizer.vocab_size()),
        ..Settings::default()
    };
    if of_stage.of_recipe {
        settings.max_new_tokens = keys.sample_max_new_tokens;
        let temperature = keys.sample_temperature;
        settings.sampling = if temperature < generate::LEAST_TEMPERATURE {
            Sampling::greedy()
        } else {
            Sampling { temperature, ..Sampling::default() }
        };
    }
    let seed = seed::derive(plan.seed, &stage.name, Purpose::Sample, step, 0);
    let prompts: Vec<Vec<u32>> = of_stage.prompts.iter().map(|prompt| prompt.ids.clone()).collect();
    let mut texts = vec![String::new(); prompts.len()];
    for completion in generate::generate(model, &prompts, &settings, seed, |_| {})? {
        if let Some(text) = texts.get_mut(completion.prompt_idx) {
            *text = completion.text(tokenizer);
        }
    }
    let rows = of_stage.prompts.iter().zip(texts).map(|(prompt, text)| SampleRow {
        step,
        prompt: prompt.text.clone(),
        text,
        ..SampleRow::default()
    });
    Ok(rows.collect())
}
