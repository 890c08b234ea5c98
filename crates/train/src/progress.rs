//! What a run tells whoever watches it.
//!
//! It deliberately prints nothing: the command line renders these events, tests record them.

use std::path::PathBuf;

use crate::metrics::{EvalRow, SampleRow, StepRow};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A stage begins, or goes on from a checkpoint.
    StageStarted {
        /// The stage.
        stage: String,
        /// Updates made before: 0, or the checkpoint's step.
        step: u64,
        /// Updates in all.
        max_steps: u64,
        /// Parameters in all.
        n_parameters: u64,
        /// Parameters that are trained.
        n_trained: u64,
        /// The checkpoint that it goes on from.
        resumed_from: Option<PathBuf>,
    },
    /// An update was made; comes for every step, logged or not.
    Step {
        /// The row.
        row: StepRow,
        /// Whether it stands in metrics.jsonl too.
        logged: bool,
    },
    /// The model was measured.
    Eval {
        /// The row.
        row: EvalRow,
        /// Whether it is the best so far.
        is_best: bool,
    },
    /// The model wrote something.
    Sample(SampleRow),
    /// A checkpoint is in place.
    CheckpointSaved {
        /// Its step.
        step: u64,
        /// Its folder.
        path: PathBuf,
        /// How long saving took.
        seconds: f64,
    },
    /// A checkpoint is damaged and was set aside.
    CheckpointRejected {
        /// `checkpoint step-N rejected: <file>: checksum differs`.
        message: String,
        /// Where it lies now.
        moved_to: PathBuf,
    },
    /// Something a stage did besides its steps.
    Note {
        /// What it was.
        message: String,
    },
    /// Something the user should know of that stops nothing.
    Warning {
        /// What it is.
        message: String,
    },
    /// A signal came: the run stops after this step.
    Stopping {
        /// The step that is being finished.
        step: u64,
    },
    /// A stage reached its end.
    Finished {
        /// The stage.
        stage: String,
        /// Updates made in all.
        steps: u64,
        /// Seconds of training, interruptions left out.
        seconds: f64,
        /// The stage's folder.
        path: PathBuf,
    },
}

/// Whoever watches, on whatever thread the loop runs.
pub trait Progress: Send {
    /// Called on the loop's thread: be quick.
    fn event(&mut self, event: &Event);
}

/// Nobody watches.
#[derive(Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&mut self, _event: &Event) {}
}

/// Keeps every event, for tests.
#[derive(Debug, Default)]
pub struct Recorder {
    /// All events so far.
    pub events: Vec<Event>,
}

impl Progress for Recorder {
    fn event(&mut self, event: &Event) {
        self.events.push(event.clone());
    }
}
