//! Runs of tasks (`temper eval --task`): the requests of all rows, answered in batches.
//!
//! Prompts and metrics are in the crate tasks. Token splits, windows and truncation are those of lm-evaluation-harness 0.4.

mod completions;
mod likelihood;
mod tokens;

use model::CausalLm;
use serde_json::{Map, Value};
use tasks::{Estimate, Item, Request, Response, Task};
use tokenizer::Tokenizer;

use crate::error::{Error, Result};
use crate::scorer::{Answer, Scorer};
use likelihood::{Likelihood, log_likelihoods};
use tokens::{Pair, TaskTokenizer};

/// A task's rows and metrics.
#[derive(Clone, Debug)]
pub struct TaskRun {
    /// The rows in the order of the data.
    pub rows: Vec<ScoredRow>,
    /// The metrics over all rows.
    pub estimates: Vec<Estimate>,
    /// Notes on the rows that a reader of the metrics should know, as sentences.
    pub notes: Vec<String>,
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

/// Answers the requests of a task's items and scores them. `reward` ranks the completions of tasks that select the best one.
/// `seed` selects the draws of tasks that sample; `progress` gets the number of answered requests and of all.
///
/// Errors: a continuation without tokens or longer than the model's context; logits that are not finite; a task that needs a
/// reward model, and none.
pub fn run_task(
    model: &CausalLm,
    tokenizer: &Tokenizer,
    reward: Option<&Scorer<'_>>,
    task: &Task,
    items: &[Item],
    seed: u64,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<TaskRun> {
    let reward = match (task.needs_rewards(), reward) {
        (false, _) => None,
        (true, Some(reward)) => Some(reward),
        (true, None) => return Err(Error::NoRewardModel { task: task.name().to_owned() }),
    };
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
    let mut responses = work.responses(&likelihoods, texts);
    if let Some(reward) = reward {
        responses = ranked(reward, items, responses, progress)?;
    }
    Ok(finished(task, items, responses, work.n_truncated))
}

/// As [`run_task`], for tasks of pairs.
///
/// Errors: a text that is longer than the model's context; scores that are not finite.
pub fn run_pairs(
    model: &Scorer<'_>,
    task: &Task,
    items: &[Item],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<TaskRun> {
    let mut answers = Vec::new();
    for item in items {
        for request in &item.requests {
            if let Request::Score { prompt, answer } = request {
                let (place, prompt, text) = (item.place.clone(), prompt.clone(), answer.clone());
                answers.push(Answer { place, prompt, text });
            }
        }
    }
    let scores = model.scores(&answers, progress)?;
    Ok(finished(task, items, scores.into_iter().map(Response::Score).collect(), 0))
}

/// ln p of each of several continuations after each context, in order; contexts come with their locations.
///
/// Errors: a context that loses its beginning because the model's own is shorter.
pub(crate) fn likelihoods_after(
    model: &CausalLm,
    tokenizer: &Tokenizer,
    contexts: &[(String, String)],
    continuations: &[&str],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<f64>> {
    let n_positions = model.config().max_positions();
    let tokenizer = TaskTokenizer::new(tokenizer, n_positions)?;
    let mut pairs = Vec::with_capacity(contexts.len() * continuations.len());
    for (place, context) in contexts {
        for continuation in continuations {
            let fails = |reason| Error::Prompt { place: place.clone(), reason };
            let (pair, is_cut) = tokenizer.pair(context, continuation)?.map_err(fails)?;
            if is_cut {
                let reason = format!("the text is longer than the model's context, {n_positions}");
                return Err(fails(reason));
            }
            pairs.push(pair);
        }
    }
    let found = log_likelihoods(model, &pairs, progress)?;
    Ok(found.into_iter().map(|found| found.sum).collect())
}

/// Completions with their scores as answers to the rows' questions.
fn ranked(
    reward: &Scorer<'_>,
    items: &[Item],
    responses: Vec<Response>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Response>> {
    let mut answers = Vec::new();
    for (item, response) in items.iter().zip(&responses) {
        let Response::Generated(texts) = response else { continue };
        for text in texts {
            let (place, prompt) = (item.place.clone(), item.question.clone());
            answers.push(Answer { place, prompt, text: text.clone() });
        }
    }
    let mut scores = reward.scores(&answers, progress)?.into_iter();
    let of = |response: Response| match response {
        Response::Generated(texts) => {
            Response::Ranked(texts.into_iter().zip(&mut scores).collect())
        }
        other @ (Response::LogLikelihood { .. }
        | Response::Rolling { .. }
        | Response::Ranked(_)
        | Response::Score(_)) => other,
    };
    Ok(responses.into_iter().map(of).collect())
}

fn finished(task: &Task, items: &[Item], responses: Vec<Response>, n_truncated: usize) -> TaskRun {
    let (mut rows, mut scores) = (Vec::new(), Vec::new());
    let mut responses = responses.into_iter();
    for item in items {
        let responses: Vec<Response> = responses.by_ref().take(item.requests.len()).collect();
        let (score, answers) = task.score(item, &responses);
        let values = task.row_json(item, &responses, &score, &answers);
        rows.push(ScoredRow { doc_id: item.doc_id, place: item.place.clone(), values });
        scores.push(score);
    }
    let estimates = task.summarize(items, &scores);
    let notes = task.notes(items, &scores, &estimates);
    TaskRun { rows, estimates, notes, n_truncated }
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
            Request::Score { .. } => {
                return Err(fails("pairs are scored by a reward model".to_owned()));
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
