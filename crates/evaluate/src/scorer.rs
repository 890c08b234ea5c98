//! Scores of answers to prompts by a reward model, in batches of similar length.

use burn::tensor::Device;
use data::Batch;
use model::ScalarModel;
use tokenizer::{Message, Role, Tokenizer};

use crate::error::{Error, Result};
use crate::pairs::{text_scores, without_autodiff};

/// Maximum number of tokens of a batch, unless one text is longer.
const TOKENS: usize = 8192;

/// A reward model with its tokenizer.
pub struct Scorer<'a> {
    model: ScalarModel,
    tokenizer: &'a Tokenizer,
    device: Device,
}

/// An answer to a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Location of the prompt.
    pub place: String,
    /// The prompt, as the message of the user.
    pub prompt: String,
    /// The answer, as the message of the assistant.
    pub text: String,
}

impl<'a> Scorer<'a> {
    /// Errors: the tokenizer has no chat template.
    pub fn new(model: &ScalarModel, tokenizer: &'a Tokenizer) -> Result<Self> {
        if tokenizer.chat_template().is_none() {
            return Err(Error::NoChatTemplate);
        }
        let model = without_autodiff(model);
        let device = model.backbone.device();
        Ok(Self { model, tokenizer, device })
    }

    /// The score of each answer, in order. `progress` gets the number of scored answers and of all.
    ///
    /// Errors: a text that is longer than the model's context; scores that are not finite.
    pub fn scores(
        &self,
        answers: &[Answer],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<f64>> {
        let texts = answers.iter().map(|answer| self.encode(answer)).collect::<Result<Vec<_>>>()?;
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&idx| std::cmp::Reverse(texts[idx].len()));
        let mut scores = vec![0.0; texts.len()];
        let mut rest = order.as_slice();
        while let Some(first) = rest.first() {
            let n_rows = (TOKENS / texts[*first].len().max(1)).clamp(1, rest.len());
            let (batch, tail) = rest.split_at(n_rows);
            rest = tail;
            let rows: Vec<Vec<u32>> = batch.iter().map(|&idx| texts[idx].clone()).collect();
            let rows = Batch::of_texts(&rows, self.tokenizer.pad().unwrap_or(0));
            let found = text_scores(&self.model, &rows, &self.device).into_data();
            for (&idx, score) in batch.iter().zip(found.iter::<f64>()) {
                if !score.is_finite() {
                    return Err(Error::NotFinite(score));
                }
                scores[idx] = score;
            }
            progress(answers.len() - rest.len(), answers.len());
        }
        Ok(scores)
    }

    fn encode(&self, Answer { place, prompt, text }: &Answer) -> Result<Vec<u32>> {
        let template = self.tokenizer.chat_template().ok_or(Error::NoChatTemplate)?;
        let messages =
            [Message::new(Role::User, prompt.clone()), Message::new(Role::Assistant, text.clone())];
        let ids = self.tokenizer.encode_for_scoring(&messages[..], template)?.ids;
        let n_longest = self.model.config().max_positions();
        if ids.len() > n_longest {
            let reason = format!(
                "prompt and answer have {} tokens, but the reward model's context is {n_longest}",
                ids.len()
            );
            return Err(Error::Prompt { place: place.clone(), reason });
        }
        Ok(ids)
    }
}
