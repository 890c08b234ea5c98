//! The thread of a model, and the jobs that requests send to it.

mod worker;

use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;

use generate::{LiveToken, Settings};
use model::CausalLm;
use tokio::sync::mpsc::UnboundedSender;

use crate::grammar::Grammar;
use crate::metrics::ModelMetrics;

/// Completions of a prompt that a request wants.
pub(crate) struct Job {
    /// Ids that `generate::check_prompt` accepts.
    pub(crate) prompt: Vec<u32>,
    /// The prompt's number in its request, on which its random draws depend.
    pub(crate) prompt_idx: usize,
    /// Settings of sampling. `settings.n` is the number of completions.
    pub(crate) settings: Arc<Settings>,
    pub(crate) seed: u64,
    /// Ids of the prompt.
    pub(crate) grammar: Option<Grammar>,
    /// Where events go. The job is given up when the receiver is dropped.
    ///
    /// The channel has no limit, so that a slow reader keeps nobody waiting; a job has `n * max_new_tokens` events at most.
    pub(crate) events: UnboundedSender<Event>,
}

/// An event of a job.
#[derive(Debug)]
pub(crate) enum Event {
    /// A prompt was read; another one shares this many of its tokens.
    Read { n_shared: usize },
    /// The next token of a completion.
    Token { choice_idx: usize, token: LiveToken },
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
        metrics: ModelMetrics,
    ) -> Result<Self, fsio::NoThread> {
        let (jobs, received) = mpsc::channel();
        let failure = Arc::new(OnceLock::new());
        let reported = Arc::clone(&failure);
        let thread = std::thread::Builder::new().name("model".to_owned()).spawn(move || {
            let work = || worker::run(&model, &received, &metrics);
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
