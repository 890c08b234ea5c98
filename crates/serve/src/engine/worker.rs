//! The loop of a model's thread: requests join and leave the batch between tokens, and long prompts are read in pieces
//! between the tokens of others.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use generate::{LiveBatch, LiveToken, Prefixes, Prompt, PromptReader, Sequence};
use model::CausalLm;
use tokio::sync::mpsc::UnboundedSender;

use super::{Event, Job};
use crate::metrics::ModelMetrics;

/// Sequences that are decoded together; further ones wait.
pub(crate) const MAX_ROWS: usize = 64;
/// Bytes of keys and values of the batch, if every sequence becomes as long as it may: sequences wait while there would be
/// more. A sequence that needs more alone is decoded alone.
const MAX_CACHE_BYTES: u64 = 4 << 30;
/// Bytes of keys and values of the beginnings of prompts that are kept for further prompts.
const MAX_PREFIX_BYTES: u64 = 1 << 30;
/// Bytes of an element of the cache.
const ELEMENT_BYTES: u64 = 4;

/// Decodes jobs until their sender is dropped.
pub(super) fn run(model: &CausalLm, jobs: &Receiver<Job>, metrics: &ModelMetrics) {
    let model = generate::without_autodiff(model);
    let mut worker = Worker {
        model: &model,
        batch: LiveBatch::new(&model),
        waiting: VecDeque::new(),
        reading: None,
        prefixes: Prefixes::new(MAX_PREFIX_BYTES / ELEMENT_BYTES),
        metrics,
    };
    while worker.receive(jobs) {
        kernels::on_pool(|| worker.advance());
        worker.show();
    }
    worker.show();
}

struct Worker<'a> {
    model: &'a CausalLm,
    batch: LiveBatch<'a, Listener>,
    waiting: VecDeque<Job>,
    /// The job whose prompt is being read.
    reading: Option<(Job, PromptReader<'a>)>,
    prefixes: Prefixes<'a>,
    metrics: &'a ModelMetrics,
}

/// Where the tokens of a sequence go.
struct Listener {
    choice_idx: usize,
    events: UnboundedSender<Event>,
}

impl<'a> Worker<'a> {
    /// Takes the jobs that have arrived; waits for one if there is nothing to do. False if none will come any more and all
    /// are done.
    fn receive(&mut self, jobs: &Receiver<Job>) -> bool {
        let is_idle = self.waiting.is_empty() && self.reading.is_none() && self.batch.is_empty();
        if is_idle {
            self.show();
            match jobs.recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(_) => return false,
            }
        }
        loop {
            match jobs.try_recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// Reads a piece of a prompt, if one waits and there is room, and decodes a token of each sequence.
    fn advance(&mut self) {
        self.forget_abandoned();
        if self.reading.is_none()
            && let Some(job) = self.next_job()
        {
            let reader = PromptReader::new(self.model, job.prompt.clone(), &mut self.prefixes);
            self.reading = Some((job, reader));
        }
        if let Some((job, mut reader)) = self.reading.take() {
            match reader.read_piece(&mut self.prefixes) {
                Some(prompt) => {
                    self.metrics.prompt_tokens.inc_by(job.prompt.len() as u64);
                    let n_shared = reader.n_shared();
                    self.metrics.shared_tokens.inc_by(n_shared as u64);
                    // A request that was given up is dropped with the next step.
                    let _ = job.events.send(Event::Read { n_shared });
                    self.begin(&job, &Arc::new(prompt));
                }
                None => self.reading = Some((job, reader)),
            }
        }
        let mut report = reporter(self.metrics);
        self.batch.step(&mut report);
    }

    /// Drops the jobs and sequences that nobody waits for.
    fn forget_abandoned(&mut self) {
        self.waiting.retain(|job| !job.events.is_closed());
        if self.reading.as_ref().is_some_and(|(job, _)| job.events.is_closed()) {
            self.reading = None;
        }
        self.batch.retain(|listener| !listener.events.is_closed());
    }

    /// The job that waits longest, if the batch has room for it.
    fn next_job(&mut self) -> Option<Job> {
        let job = self.waiting.front()?;
        let n_rows = self.batch.len() + job.settings.n;
        let room = self.model.config().max_positions();
        let longest = (job.prompt.len() + job.settings.max_new_tokens).min(room);
        let longest = longest.max(self.batch.max_len());
        let elements = self.model.config().kv_cache_elements(longest);
        let bytes = elements.saturating_mul(ELEMENT_BYTES).saturating_mul(n_rows as u64);
        let fits = n_rows <= MAX_ROWS && bytes <= MAX_CACHE_BYTES;
        if fits || self.batch.is_empty() { self.waiting.pop_front() } else { None }
    }

    /// Adds the completions of a job whose prompt was read.
    fn begin(&mut self, job: &Job, prompt: &Arc<Prompt<'a>>) {
        let mut report = reporter(self.metrics);
        for completion_idx in 0..job.settings.n {
            let place = (job.prompt_idx, completion_idx);
            let sequence = Sequence::new(self.model, &job.settings, &job.prompt, place, job.seed);
            let sequence = match &job.grammar {
                Some(grammar) => sequence.constrained(Box::new(grammar.clone())),
                None => sequence,
            };
            let choice_idx = job.prompt_idx * job.settings.n + completion_idx;
            let listener = Listener { choice_idx, events: job.events.clone() };
            self.batch.add(sequence, listener, prompt, &mut report);
        }
    }

    /// Publishes the numbers of sequences and waiting jobs.
    fn show(&self) {
        self.metrics.running.set(self.batch.len() as i64);
        let n_waiting = self.waiting.len() + usize::from(self.reading.is_some());
        self.metrics.waiting.set(n_waiting as i64);
    }
}

/// Sends the tokens of a sequence to its request; false if nobody waits for them any more.
fn reporter(
    metrics: &ModelMetrics,
) -> impl FnMut(&mut Listener, generate::Result<LiveToken>) -> bool {
    |listener, token| {
        let Listener { choice_idx, events } = listener;
        let event = match token {
            Ok(token) => {
                metrics.generated_tokens.inc();
                Event::Token { choice_idx: *choice_idx, token }
            }
            Err(error) => Event::Failed { message: error.to_string() },
        };
        events.send(event).is_ok()
    }
}
