//! Runs of tasks (`temper eval --task`): the requests of all rows, answered in batches.
//!
//! Prompts and metrics are in the crate tasks. Token splits, windows and truncation are those of lm-evaluation-harness 0.4.

mod completions;
mod likelihood;
mod tokens;

use std::collections::BTreeMap;

use model::CausalLm;
use serde_json::{Map, Value};
use tasks::{Estimate, Gold, Item, Request, Response, Task};
use tokenizer::Tokenizer;

use crate::error::{Error, Result};
use likelihood::{Likelihood, log_likelihoods};
use tokens::{Pair, TaskTokenizer};

/// A task's rows and metrics.
#[derive(Clone, Debug)]
pub struct TaskRun {
    /// The rows in the order of the data.
    pub rows: Vec<ScoredRow>,
    /// The metrics over all rows.
    pub estimates: Vec<Estimate>,
    /// Number of instructions that are not checked, by name.
    pub n_unchecked: BTreeMap<String, usize>,
    /// Number of requests whose prompt lost tokens at its beginning, because the model's context is shorter.
    pub n_truncated: usize,
}

/// A row with its prompts, responses and metrics.
#[derive(Clone, Debug)]
pub struct ScoredRow {
    /// Number of the row in the task's data, from 0.
    pub doc_id: usize,
    /// Location of the row.
    pub place: String,
    /// The keys `target`, `requests`, `filtered` and one for each metric.
    pub values: Map<String, Value>,
}

/// Answers the requests of a task's items and scores them. `seed` selects the draws of tasks that sample; `progress` gets the number of answered requests and of all.
///
/// Errors: a continuation without tokens or longer than the model's context; logits that are
/// not finite.
pub fn run_task(
    model: &CausalLm,
    tokenizer: &Tokenizer,
    task: &Task,
    items: &[Item],
    seed: u64,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<TaskRun> {
    let tokenizer = TaskTokenizer::new(tokenizer, model.config().max_positions())?;
    let mut work = Work::default();
    for item in items {
        for request in &item.requests {
            work.add(item, request, &tokenizer)?;
        }
    }
    let likelihoods = log_likelihoods(model, &work.pairs, progress)?;
    let texts = match task.generation() {
        Some(generation) => {
            let prompts = std::mem::take(&mut work.prompts);
            let ask = completions::Ask { tokenizer: &tokenizer, generation, seed };
            let (texts, n_truncated) = ask.answer(model, prompts, progress)?;
            work.n_truncated += n_truncated;
            texts
        }
        None => Vec::new(),
    };
    let responses = work.responses(&likelihoods, texts);
    let (mut rows, mut scores) = (Vec::new(), Vec::new());
    let mut responses = responses.into_iter();
    for item in items {
        let responses: Vec<Response> = responses.by_ref().take(item.requests.len()).collect();
        let (score, answers) = task.score(item, &responses);
        let values = task.row_json(item, &responses, &score, &answers);
        rows.push(ScoredRow { doc_id: item.doc_id, place: item.place.clone(), values });
        scores.push(score);
    }
    let mut n_unchecked = BTreeMap::new();
    for item in items {
        if let Gold::Instructions(instructions) = &item.gold {
            for name in instructions.unchecked() {
                *n_unchecked.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
    let estimates = tasks::summarize(&scores);
    Ok(TaskRun { rows, estimates, n_unchecked, n_truncated: work.n_truncated })
}

/// Token sequences of all requests.
#[derive(Default)]
struct Work {
    pairs: Vec<Pair>,
    /// Prompts with the locations of their rows.
    prompts: Vec<(String, String)>,
    /// The outcome of each request, in order.
    parts: Vec<Part>,
    n_truncated: usize,
}

enum Part {
    /// One pair.
    Pair(usize),
    /// Windows of a text.
    Windows(std::ops::Range<usize>),
    /// A prompt.
    Prompt(usize),
}

impl Work {
    fn add(&mut self, item: &Item, request: &Request, tokenizer: &TaskTokenizer<'_>) -> Result<()> {
        let fails = |reason| Error::Prompt { place: item.place.clone(), reason };
        match request {
            Request::LogLikelihood { context, continuation } => {
                let pair = tokenizer.pair(context, continuation)?;
                let (pair, truncated) = pair.map_err(fails)?;
                self.n_truncated += usize::from(truncated);
                self.parts.push(Part::Pair(self.pairs.len()));
                self.pairs.push(pair);
            }
            Request::Rolling { text } => {
                let start = self.pairs.len();
                self.pairs.extend(tokenizer.windows(text)?);
                self.parts.push(Part::Windows(start..self.pairs.len()));
            }
            Request::Generate { prompt } => {
                self.parts.push(Part::Prompt(self.prompts.len()));
                self.prompts.push((prompt.clone(), item.place.clone()));
            }
        }
        Ok(())
    }

    fn responses(&self, likelihoods: &[Likelihood], texts: Vec<Vec<String>>) -> Vec<Response> {
        let of = |part: &Part| match part {
            Part::Pair(idx) => {
                let Likelihood { sum, is_greedy } = likelihoods[*idx];
                Response::LogLikelihood { sum, is_greedy }
            }
            Part::Windows(range) => {
                let sum = likelihoods[range.clone()].iter().map(|window| window.sum).sum();
                Response::Rolling { sum }
            }
            Part::Prompt(idx) => Response::Generated(texts[*idx].clone()),
        };
        self.parts.iter().map(of).collect()
    }
}
