//! Completions of a task's prompts.

use generate::{Sampling, Settings, Stop, generate};
use model::CausalLm;
use tasks::Generation;

use super::tokens::TaskTokenizer;
use crate::error::{Error, Result};

/// Arguments that all prompts of a task share.
pub(super) struct Ask<'a> {
    pub(super) tokenizer: &'a TaskTokenizer<'a>,
    pub(super) generation: &'a Generation,
    pub(super) seed: u64,
}

impl Ask<'_> {
    /// Completions of each prompt, and the number of prompts whose beginning was cut off. Prompts come with the locations of
    /// their rows.
    pub(super) fn answer(
        &self,
        model: &CausalLm,
        prompts: Vec<(String, String)>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(Vec<Vec<String>>, usize)> {
        let Generation { until, max_new_tokens, temperature, top_p, votes, .. } = self.generation;
        let n_positions = model.config().max_positions();
        let room = n_positions.saturating_sub(*max_new_tokens);
        let mut ids = Vec::with_capacity(prompts.len());
        let mut n_truncated = 0;
        for (prompt, place) in &prompts {
            let fails = |reason| Error::Prompt { place: place.clone(), reason };
            let mut prompt = self.tokenizer.encode(prompt)?;
            if room == 0 {
                let reason = format!(
                    "{max_new_tokens} new tokens, but the model's context is {n_positions}"
                );
                return Err(fails(reason));
            }
            if prompt.is_empty() {
                return Err(fails("the prompt has no tokens".to_owned()));
            }
            n_truncated += usize::from(prompt.len() > room);
            prompt.drain(..prompt.len().saturating_sub(room));
            ids.push(prompt);
        }
        // Prompts of one batch have similar lengths. Draws depend on the order, so a task that samples keeps it.
        let mut order: Vec<usize> = (0..ids.len()).collect();
        if *temperature == 0.0 {
            order.sort_by_key(|&idx| std::cmp::Reverse(ids[idx].len()));
        }
        let sampling = if *temperature == 0.0 {
            Sampling::greedy()
        } else {
            Sampling { temperature: *temperature, top_p: *top_p, ..Sampling::default() }
        };
        let tokenizer = self.tokenizer.tokenizer();
        let settings = Settings {
            sampling,
            n: *votes,
            max_new_tokens: *max_new_tokens,
            eos_ids: tokenizer.eos_ids(),
            stop: (!until.is_empty()).then(|| Stop::new(until.clone(), tokenizer)),
            vocab_size: Some(tokenizer.vocab_size()),
            ..Settings::default()
        };
        let sorted: Vec<Vec<u32>> = order.iter().map(|&idx| ids[idx].clone()).collect();
        let mut n_done = 0;
        let on_token = |token: &generate::NewToken| {
            if token.finish_reason.is_some() {
                n_done += 1;
                progress(n_done / votes, prompts.len());
            }
        };
        let completions = generate(model, &sorted, &settings, self.seed, on_token)?;
        let mut texts = vec![Vec::new(); prompts.len()];
        for completion in completions {
            texts[order[completion.prompt_idx]].push(completion.text(tokenizer));
        }
        Ok((texts, n_truncated))
    }
}
