//! Samples logged at each evaluation. They change no weights and have a random stream of their own.

use generate::Settings;
use model::CausalLm;
use plan::{Plan, StagePlan};
use seed::Purpose;
use train::SampleRow;

use crate::Result;

/// Number of tokens of a sample.
const MAX_NEW_TOKENS: usize = 48;

/// The prompt of the samples of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SamplePrompt {
    /// Its token ids.
    pub ids: Vec<u32>,
    /// The text that the log shows for it.
    pub text: String,
}

impl SamplePrompt {
    /// A continuation of the prompt by the model as it is after `step` updates.
    pub(crate) fn continuation(
        &self,
        plan: &Plan,
        stage: &StagePlan,
        model: &CausalLm,
        step: u64,
    ) -> Result<SampleRow> {
        let tokenizer = &stage.tokenizer;
        let settings = Settings {
            max_new_tokens: MAX_NEW_TOKENS,
            eos_ids: tokenizer.eos_ids(),
            ..Settings::default()
        };
        let seed = seed::derive(plan.seed, &stage.name, Purpose::Sample, step, 0);
        let prompts = [self.ids.clone()];
        let completions = generate::generate(model, &prompts, &settings, seed, |_| {})?;
        let text = completions.first().map(|completion| completion.text(tokenizer));
        let (prompt, text) = (self.text.clone(), text.unwrap_or_default());
        Ok(SampleRow { step, prompt, text, ..SampleRow::default() })
    }
}
