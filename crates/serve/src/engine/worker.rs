//! The loop of a model's thread: requests join and leave the batch between tokens, and long prompts are read in pieces
//! between the tokens of others.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use generate::{LiveBatch, LiveToken, Prefixes, Prompt, PromptReader, Sequence};
use model::CausalLm;
use tokio::sync::mpsc::UnboundedSender;

use super::{Completions, Event, Job, Member, Work};

/// Sequences that are decoded together; further ones wait.
pub(crate) const MAX_ROWS: usize = 64;
/// Bytes of keys and values of the batch, if every sequence becomes as long as it may: sequences wait while there would be
/// more. A sequence that needs more alone is decoded alone.
const MAX_CACHE_BYTES: u64 = 4 << 30;
/// Bytes of keys and values of the beginnings of prompts that are kept for further prompts.
const MAX_PREFIX_BYTES: u64 = 1 << 30;
/// Tokens of prompts that are read before the next token of each sequence: several short prompts, or a piece of a long one.
const READ_PER_STEP: usize = 128;
/// Bytes of an element of the cache.
const ELEMENT_BYTES: u64 = 4;

/// Decodes jobs until their sender is dropped.
pub(super) fn run(model: &CausalLm, members: &[Member], jobs: &Receiver<Job>) {
    let model = generate::without_autodiff(model);
    let mut worker = Worker {
        model: &model,
        members,
        batch: LiveBatch::new(&model),
        waiting: Waiting::default(),
        reading: None,
        prefixes: Prefixes::new(MAX_PREFIX_BYTES / ELEMENT_BYTES),
    };
    while worker.receive(jobs) {
        kernels::on_pool(|| worker.advance());
        worker.show();
    }
    worker.show();
}

struct Worker<'a> {
    model: &'a CausalLm,
    members: &'a [Member],
    batch: LiveBatch<'a, Listener>,
    waiting: Waiting,
    /// The job whose prompt is being read.
    reading: Option<(Job, PromptReader<'a>)>,
    prefixes: Prefixes<'a>,
}

/// Jobs that wait, in order. Completions and embeddings take turns: a request can have many texts to embed.
#[derive(Default)]
struct Waiting {
    completions: VecDeque<Job>,
    embeddings: VecDeque<Job>,
    embeds_next: bool,
}

/// Where the tokens of a sequence go.
struct Listener {
    member_idx: usize,
    choice_idx: usize,
    events: UnboundedSender<Event>,
}

impl Waiting {
    fn push(&mut self, job: Job) {
        match job.work {
            Work::Complete(_) => self.completions.push_back(job),
            Work::Embed => self.embeddings.push_back(job),
        }
    }

    fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.completions.iter().chain(&self.embeddings)
    }

    /// The job that waits longest; completions only if `fits` is true of them.
    fn pop(&mut self, fits: impl Fn(&Job, &Completions) -> bool) -> Option<Job> {
        let may_complete = self.completions.front().is_some_and(|job| match &job.work {
            Work::Complete(work) => fits(job, work),
            Work::Embed => true,
        });
        let embeds = !self.embeddings.is_empty() && (self.embeds_next || !may_complete);
        self.embeds_next = !embeds;
        if embeds {
            self.embeddings.pop_front()
        } else if may_complete {
            self.completions.pop_front()
        } else {
            None
        }
    }
}

impl<'a> Worker<'a> {
    /// Takes the jobs that have arrived; waits for one if there is nothing to do. False if none will come any more and all
    /// are done.
    fn receive(&mut self, jobs: &Receiver<Job>) -> bool {
        let has_waiting = self.waiting.jobs().next().is_some();
        if !has_waiting && self.reading.is_none() && self.batch.is_empty() {
            self.show();
            match jobs.recv() {
                Ok(job) => self.waiting.push(job),
                Err(_) => return false,
            }
        }
        loop {
            match jobs.try_recv() {
                Ok(job) => self.waiting.push(job),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// Reads some tokens of the prompts that wait, if there is room, and decodes a token of each sequence.
    fn advance(&mut self) {
        self.forget_abandoned();
        let mut n_read = 0;
        while n_read < READ_PER_STEP {
            match self.read_piece() {
                Some(n) => n_read += n,
                None => break,
            }
        }
        let mut report = reporter(self.members);
        self.batch.step(&mut report);
    }

    /// Reads a piece of the prompt whose turn it is; returns the number of its tokens, or none if no prompt can be read.
    fn read_piece(&mut self) -> Option<usize> {
        let (job, mut reader) = match self.reading.take() {
            Some(reading) => reading,
            None => {
                let job = self.next_job()?;
                let adapter = self.members.get(job.member_idx).and_then(|member| member.adapter);
                let ids = job.prompt.clone();
                let reader = PromptReader::new(self.model, adapter, ids, &mut self.prefixes);
                (job, reader)
            }
        };
        let n_before = reader.n_read();
        let prompt = reader.read_piece(&mut self.prefixes);
        let n_read = reader.n_read() - n_before;
        let Some(prompt) = prompt else {
            self.reading = Some((job, reader));
            return Some(n_read);
        };
        let n_shared = reader.n_shared();
        if let Some(Member { metrics, .. }) = self.members.get(job.member_idx) {
            metrics.prompt_tokens.inc_by(job.prompt.len() as u64);
            metrics.shared_tokens.inc_by(n_shared as u64);
        }
        // A request that was given up is dropped with the next step.
        let _ = job.events.send(Event::Read { n_shared });
        self.begin(&job, prompt);
        Some(n_read)
    }

    /// Drops the jobs and sequences that nobody waits for.
    fn forget_abandoned(&mut self) {
        let Waiting { completions, embeddings, .. } = &mut self.waiting;
        for jobs in [completions, embeddings] {
            jobs.retain(|job| !job.events.is_closed());
        }
        if self.reading.as_ref().is_some_and(|(job, _)| job.events.is_closed()) {
            self.reading = None;
        }
        self.batch.retain(|listener| !listener.events.is_closed());
    }

    /// The job that waits longest, if the batch has room for it.
    fn next_job(&mut self) -> Option<Job> {
        let Self { batch, model, waiting, .. } = self;
        waiting.pop(|job, Completions { settings, .. }| {
            let n_rows = batch.len() + settings.n;
            let room = model.config().max_positions();
            let longest = (job.prompt.len() + settings.max_new_tokens).min(room);
            let elements = model.config().kv_cache_elements(longest.max(batch.max_len()));
            let bytes = elements.saturating_mul(ELEMENT_BYTES).saturating_mul(n_rows as u64);
            batch.is_empty() || (n_rows <= MAX_ROWS && bytes <= MAX_CACHE_BYTES)
        })
    }

    /// Adds the completions of a job whose prompt was read, or sends its embedding.
    fn begin(&mut self, job: &Job, prompt: Prompt<'a>) {
        let (prompt_idx, member_idx) = (job.prompt_idx, job.member_idx);
        let Completions { settings, seed, grammar } = match &job.work {
            Work::Complete(completions) => &**completions,
            Work::Embed => {
                let values = prompt.last_hidden().to_vec();
                let _ = job.events.send(Event::Embedding { prompt_idx, values });
                return;
            }
        };
        let prompt = Arc::new(prompt);
        let mut report = reporter(self.members);
        for completion_idx in 0..settings.n {
            let place = (prompt_idx, completion_idx);
            let sequence = Sequence::new(self.model, settings, &job.prompt, place, *seed);
            let sequence = match grammar {
                Some(grammar) => sequence.constrained(Box::new(grammar.clone())),
                None => sequence,
            };
            let choice_idx = prompt_idx * settings.n + completion_idx;
            let listener = Listener { member_idx, choice_idx, events: job.events.clone() };
            self.batch.add(sequence, listener, &prompt, &mut report);
        }
    }

    /// Publishes the numbers of sequences and waiting jobs.
    fn show(&self) {
        let reading = self.reading.as_ref().map(|(job, _)| job);
        for (idx, Member { metrics, .. }) in self.members.iter().enumerate() {
            let running = self.batch.companions().filter(|of| of.member_idx == idx).count();
            let jobs = self.waiting.jobs().chain(reading);
            metrics.running.set(running as i64);
            metrics.waiting.set(jobs.filter(|job| job.member_idx == idx).count() as i64);
        }
    }
}

/// Sends the tokens of a sequence to its request; false if nobody waits for them any more.
fn reporter(
    members: &[Member],
) -> impl FnMut(&mut Listener, generate::Result<LiveToken>) -> bool + '_ {
    |listener, token| {
        let Listener { member_idx, choice_idx, events } = listener;
        let event = match token {
            Ok(token) => {
                if let Some(Member { metrics, .. }) = members.get(*member_idx) {
                    metrics.generated_tokens.inc();
                }
                Event::Token { choice_idx: *choice_idx, token }
            }
            Err(error) => Event::Failed { message: error.to_string() },
        };
        events.send(event).is_ok()
    }
}
