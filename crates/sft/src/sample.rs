//! An answer to a prompt that is held out, beside each measurement. It changes no weights and draws from seeds of its
//! own.

use generate::Settings;
use model::CausalLm;
use plan::{Plan, StagePlan};
use seed::Purpose;
use train::SampleRow;

use crate::Result;

/// Tokens of a sample.
const MAX_NEW_TOKENS: usize = 48;

/// The model's answer to the first prompt that is held out.
pub(crate) fn answer(
    plan: &Plan,
    stage: &StagePlan,
    model: &CausalLm,
    step: u64,
) -> Result<SampleRow> {
    let tokenizer = &stage.tokenizer;
    let prompt = first_prompt(stage);
    let prompt_text = tokenizer.decode(&prompt, false);
    let settings = Settings {
        max_new_tokens: MAX_NEW_TOKENS,
        eos_ids: tokenizer.eos_ids(),
        ..Settings::default()
    };
    let seed = seed::derive(plan.seed, &stage.name, Purpose::Sample, step, 0);
    let completions = generate::generate(model, &[prompt], &settings, seed, |_| {})?;
    let text = completions.first().map(|completion| completion.text(tokenizer)).unwrap_or_default();
    Ok(SampleRow { step, prompt: prompt_text, text, ..SampleRow::default() })
}

/// The ids before the first target of the validation part: a prompt as the model sees it.
fn first_prompt(stage: &StagePlan) -> Vec<u32> {
    let Some(batch) = stage.dataset.eval_batches(1, Some(1)).next() else { return Vec::new() };
    let first_target = batch.targets.iter().position(|target| *target >= 0).unwrap_or(0);
    // Inputs stand one before their targets: the position that predicts the first word ends the prompt.
    batch.ids.iter().take(first_target + 1).copied().collect()
}
