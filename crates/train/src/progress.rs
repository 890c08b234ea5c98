//! Progress events of a run. The command line renders them; tests record them.

use std::path::PathBuf;

use crate::metrics::{EvalRow, SampleRow, StepRow};

/// A progress event.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A stage starts or resumes.
    StageStarted {
        /// The stage.
        stage: String,
        /// Number of updates made before: 0, or the checkpoint's step.
        step: u64,
        /// Total number of updates.
        max_steps: u64,
        /// Number of parameters.
        n_parameters: u64,
        /// Number of trainable parameters.
        n_trained: u64,
        /// The checkpoint that it resumes from.
        resumed_from: Option<PathBuf>,
    },
    /// An update was made; sent for every step, logged or not.
    Step {
        /// The row.
        row: StepRow,
        /// Whether it is in metrics.jsonl.
        logged: bool,
    },
    /// The model was evaluated.
    Eval {
        /// The row.
        row: EvalRow,
        /// Whether it is the best so far.
        is_best: bool,
    },
    /// A text was generated.
    Sample(SampleRow),
    /// A checkpoint was saved.
    CheckpointSaved {
        /// Its step.
        step: u64,
        /// Its directory.
        path: PathBuf,
        /// Seconds that saving took.
        seconds: f64,
    },
    /// A damaged checkpoint was set aside.
    CheckpointRejected {
        /// `checkpoint step-N rejected: <file>: checksum differs`.
        message: String,
        /// Its new path.
        moved_to: PathBuf,
    },
    /// Work other than steps.
    Note {
        /// Its description.
        message: String,
    },
    /// Something that the user should know and that does not stop the run.
    Warning {
        /// Its description.
        message: String,
    },
    /// A signal was received; the run stops after this step.
    Stopping {
        /// The step.
        step: u64,
    },
    /// A stage is finished.
    Finished {
        /// The stage.
        stage: String,
        /// Total number of updates.
        steps: u64,
        /// Seconds of training, without interruptions.
        seconds: f64,
        /// The directory of the stage.
        path: PathBuf,
    },
}

/// Receives progress events.
pub trait Progress: Send {
    /// Called on the thread of the training loop, so it must be quick.
    fn event(&mut self, event: &Event);
}

/// Discards all events.
#[derive(Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&mut self, _event: &Event) {}
}

/// Records all events, for tests.
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
