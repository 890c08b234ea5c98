//! The thread of a model, and the jobs that requests send to it.

mod worker;

use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;

use generate::{LiveToken, Settings};
use model::CausalLm;
use tokio::sync::mpsc::UnboundedSender;

use crate::grammar::Grammar;
use crate::metrics::ModelMetrics;

/// What a request wants of a prompt.
pub(crate) struct Job {
    /// The number of its model among those of the thread.
    pub(crate) member_idx: usize,
    /// Ids that `generate::check_prompt` accepts.
    pub(crate) prompt: Vec<u32>,
    /// The prompt's number in its request, on which its random draws depend.
    pub(crate) prompt_idx: usize,
    pub(crate) work: Work,
    /// Where events go. The job is given up when the receiver is dropped.
    ///
    /// The channel has no limit, so that a slow reader keeps nobody waiting; a job has `n * max_new_tokens` events at most.
    pub(crate) events: UnboundedSender<Event>,
}

/// What is computed of a prompt.
pub(crate) enum Work {
    /// Completions.
    Complete(Box<Completions>),
    /// The state of the last token.
    Embed,
}

/// Completions of a prompt.
pub(crate) struct Completions {
    /// Settings of sampling. `settings.n` is the number of completions.
    pub(crate) settings: Arc<Settings>,
    pub(crate) seed: u64,
    /// What they follow.
    pub(crate) grammar: Option<Grammar>,
}

/// One of the models that share a thread: the base model, or one of its adapters.
pub(crate) struct Member {
    pub(crate) adapter: Option<usize>,
    pub(crate) metrics: ModelMetrics,
}

/// An event of a job.
#[derive(Debug)]
pub(crate) enum Event {
    /// A prompt was read; another one shares this many of its tokens.
    Read { n_shared: usize },
    /// The next token of a completion.
    Token { choice_idx: usize, token: LiveToken },
    /// The state of a prompt's last token, `[d]`.
    Embedding { prompt_idx: usize, values: Vec<f32> },
    /// The job cannot continue.
    Failed { message: String },
}

/// A model's thread. It ends when the engine is dropped and its jobs are done or given up.
pub(crate) struct Engine {
    jobs: Option<mpsc::Sender<Job>>,
    failure: Arc<OnceLock<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread.
    pub(crate) fn start(
        model: Arc<CausalLm>,
        members: Vec<Member>,
    ) -> Result<Self, fsio::NoThread> {
        let (jobs, received) = mpsc::channel();
        let failure = Arc::new(OnceLock::new());
        let reported = Arc::clone(&failure);
        let thread = std::thread::Builder::new().name("model".to_owned()).spawn(move || {
            let work = || worker::run(&model, &members, &received);
            if let Err(reason) = fsio::panics::caught(work) {
                let _ = reported.set(reason);
            }
        });
        let thread = thread.map_err(fsio::NoThread)?;
        Ok(Self { jobs: Some(jobs), failure, thread: Some(thread) })
    }

    /// Sends a job; its receiver gets no event if the thread has failed.
    pub(crate) fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }

    /// The message of the panic that ended the thread.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
