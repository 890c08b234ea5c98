//! One answer: sampled and printed token by token.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ::generate::{Sampling, Settings, generate};
use model::CausalLm;
use tokenizer::Tokenizer;

use crate::args::ChatArgs;
use crate::failure::{Failure, Result};
use crate::render::printable::printable;

/// A model and how it answers.
pub(super) struct Answering<'a> {
    model: &'a CausalLm,
    tokenizer: &'a Tokenizer,
    sampling: Sampling,
    max_new_tokens: usize,
    seed: u64,
    /// Number of answers, retried ones too: each has random numbers of its own.
    n_answers: u64,
    /// Set by ctrl-C; `None` where it ends the program.
    interrupt: Option<Arc<AtomicBool>>,
}

/// An answer with its measurements.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) n_prompt: usize,
    pub(super) n_tokens: usize,
    pub(super) seconds: f64,
    pub(super) seconds_to_first: f64,
}

impl Answer {
    /// Rate after the prompt was read.
    pub(super) fn tokens_per_s(&self) -> f64 {
        let seconds = self.seconds - self.seconds_to_first;
        if seconds > 0.0 { self.n_tokens.saturating_sub(1) as f64 / seconds } else { 0.0 }
    }
}

impl<'a> Answering<'a> {
    pub(super) fn new(
        args: &ChatArgs,
        model: &'a CausalLm,
        tokenizer: &'a Tokenizer,
        interrupt: Option<Arc<AtomicBool>>,
    ) -> Self {
        let sampling = Sampling {
            temperature: args.temperature,
            top_p: args.top_p,
            greedy: args.greedy,
            ..Sampling::default()
        };
        let (max_new_tokens, seed) = (args.max_new_tokens, args.seed);
        Self { model, tokenizer, sampling, max_new_tokens, seed, n_answers: 0, interrupt }
    }

    /// Tokens of the model's context.
    pub(super) fn context(&self) -> usize {
        self.model.config().max_positions()
    }

    /// Tokens that are kept free for an answer: at most a quarter of the context.
    pub(super) fn reserved(&self) -> usize {
        self.max_new_tokens.min(self.context() / 4).max(1)
    }

    pub(super) fn temperature(&self) -> f64 {
        if self.sampling.greedy { 0.0 } else { self.sampling.temperature }
    }

    pub(super) fn set_temperature(&mut self, value: f64) {
        self.sampling.greedy = value == 0.0;
        if value > 0.0 {
            self.sampling.temperature = value;
        }
    }

    /// Samples the answer to a prompt and prints it.
    pub(super) fn answer(&mut self, prompt: Vec<u32>) -> Result<Answer> {
        let n_prompt = prompt.len();
        let settings = Settings {
            sampling: self.sampling.clone(),
            max_new_tokens: self.max_new_tokens.min(self.context().saturating_sub(n_prompt)),
            eos_ids: self.tokenizer.eos_ids(),
            vocab_size: Some(self.tokenizer.vocab_size()),
            interrupt: self.interrupt.clone(),
            ..Settings::default()
        };
        let mut stream = self.tokenizer.decode_stream(true);
        let mut out = io::stdout().lock();
        let mut written = Ok(());
        let mut show = |text: &str| {
            if written.is_ok() {
                written = out.write_all(printable(text).as_bytes()).and_then(|()| out.flush());
            }
        };
        let seed = self.seed.wrapping_add(self.n_answers);
        self.n_answers += 1;
        if let Some(interrupt) = &self.interrupt {
            interrupt.store(false, Ordering::SeqCst);
        }
        let (start, mut seconds_to_first) = (Instant::now(), None);
        let completions = generate(self.model, &[prompt], &settings, seed, |token| {
            seconds_to_first.get_or_insert_with(|| start.elapsed().as_secs_f64());
            if !settings.eos_ids.contains(&token.id) {
                show(&stream.push(token.id));
            }
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let is_stopped = self.interrupt.as_ref().is_some_and(|flag| flag.load(Ordering::SeqCst));
        show(&format!("{}{}\n", stream.finish(), if is_stopped { " (stopped)" } else { "" }));
        drop(out);
        if written.is_err() {
            return Err(Failure::quiet());
        }
        let first = completions.first();
        Ok(Answer {
            text: first.map(|answer| answer.text(self.tokenizer)).unwrap_or_default(),
            n_prompt,
            n_tokens: first.map_or(0, |answer| answer.tokens.len()),
            seconds,
            seconds_to_first: seconds_to_first.unwrap_or(seconds),
        })
    }
}
