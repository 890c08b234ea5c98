//! A text that the model writes from nothing, beside each measurement. It changes no weights and draws from seeds of
//! its own.

use generate::Settings;
use model::CausalLm;
use plan::{Plan, StagePlan};
use seed::Purpose;
use train::SampleRow;

use crate::Result;

/// Tokens of a sample.
const MAX_NEW_TOKENS: usize = 48;

/// What the model writes after what stands in front of every document; after a line break where nothing does.
pub(crate) fn continue_nothing(
    plan: &Plan,
    stage: &StagePlan,
    model: &CausalLm,
    step: u64,
) -> Result<SampleRow> {
    let tokenizer = &stage.tokenizer;
    let mut prompt = tokenizer.prefix_ids();
    if prompt.is_empty() {
        prompt = tokenizer.encode_plain("\n").unwrap_or_default();
    }
    if prompt.is_empty() {
        prompt.push(0);
    }
    let settings = Settings {
        max_new_tokens: MAX_NEW_TOKENS,
        eos_ids: tokenizer.eos_ids(),
        ..Settings::default()
    };
    let seed = seed::derive(plan.seed, &stage.name, Purpose::Sample, step, 0);
    let completions = generate::generate(model, &[prompt], &settings, seed, |_| {})?;
    let text = completions.first().map(|completion| completion.text(tokenizer)).unwrap_or_default();
    Ok(SampleRow { step, prompt: String::new(), text, ..SampleRow::default() })
}
