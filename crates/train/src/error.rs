//! What stops a run.
//!
//! Failed checks name the key that switches them off. It deliberately prints nothing.

use std::io;
use std::path::PathBuf;

use crate::checks::FailedStep;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong while training.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// A model could not be read or written.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// An adapter could not be attached, read or written.
    #[error(transparent)]
    Lora(#[from] lora::Error),
    /// What a plan found.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// A language model's adapter where scores are wanted.
    #[error("{}: the adapter has no head that gives scores", dir.display())]
    NoHead {
        /// The adapter's folder.
        dir: PathBuf,
    },
    /// Blocks cannot be computed again on the device.
    #[error("[{stage}] checkpointing: `block` works on the CPU alone")]
    Checkpointing {
        /// The stage.
        stage: String,
    },
    /// The files that describe a model could not be made.
    #[error(transparent)]
    Export(#[from] export::Error),
    /// A stage starts from one that has not run.
    #[error("[{stage}] starts from [{start}], which has not run to its end")]
    StageNotRun {
        /// The stage that cannot begin.
        stage: String,
        /// The one that it waits for.
        start: String,
    },
    /// The recipe in a checkpoint cannot be read.
    #[error(transparent)]
    Recipe(#[from] recipe::Error),
    /// Tensors could not be written.
    #[error("{path}: cannot write: {source}")]
    WriteTensors {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file of tensors is not what it should be.
    #[error("{path}: {reason}")]
    TensorFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A group of the optimizer is of no use.
    #[error("optimizer group matches no trained parameter: `{pattern}`")]
    UnmatchedGroup {
        /// Its pattern.
        pattern: String,
    },
    /// A checkpoint holds the state of another optimizer.
    #[error("{path}: has the state of `{found}`, and the optimizer is `{wanted}`")]
    OtherOptimizer {
        /// The file.
        path: PathBuf,
        /// The kind that wrote it.
        found: String,
        /// The kind that reads it.
        wanted: &'static str,
    },
    /// Checkpoints exist, and none is usable.
    #[error("{path}: no usable checkpoint among `{n_rejected}`; the newest: {newest}")]
    NoUsableCheckpoint {
        /// The folder of checkpoints.
        path: PathBuf,
        /// How many were rejected.
        n_rejected: usize,
        /// Why the newest was.
        newest: String,
    },
    /// A file in a verified checkpoint does not parse.
    #[error("{path}: {reason}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The recipe changed in a way that changes the run.
    #[error("{path}: the recipe differs from that of the run:{}", list(differences))]
    RecipeChanged {
        /// The run's folder.
        path: PathBuf,
        /// One line each.
        differences: Vec<String>,
    },
    /// Data, tokenizer or starting weights are not those the run began with.
    #[error("{path}: inputs differ from those of the run:{}", list(differences))]
    InputsChanged {
        /// The checkpoint.
        path: PathBuf,
        /// One line each.
        differences: Vec<String>,
    },
    /// A loss is not finite.
    #[error("{place}: loss is not finite: `{loss}`; the weights are as before this step")]
    NonFiniteLoss {
        /// The loss.
        loss: f64,
        /// Where.
        place: FailedStep,
    },
    /// A gradient is not finite.
    #[error("{place}: gradient is not finite: `{parameter}`; the weights are as before this step")]
    NonFiniteGradient {
        /// The first parameter with such a gradient.
        parameter: String,
        /// Where.
        place: FailedStep,
    },
    /// A step has nothing to learn.
    #[error("{place}: no position has a target")]
    NoTargets {
        /// Where.
        place: FailedStep,
    },
    /// The first loss is far from what it should be.
    #[error("{place}: first loss is `{loss:.4}`, expected between {low:.2} and {high:.2}")]
    FirstLoss {
        /// The loss.
        loss: f64,
        /// The smallest that is sane.
        low: f64,
        /// The largest that is sane.
        high: f64,
        /// Where.
        place: FailedStep,
    },
    /// A trained parameter has had no gradient.
    #[error("{place}: trained parameter has had no gradient: `{parameter}`")]
    NoGradient {
        /// The parameter.
        parameter: String,
        /// Where.
        place: FailedStep,
    },
    /// A trained parameter has not changed.
    #[error("{place}: trained parameter has not changed: `{parameter}`")]
    Unmoved {
        /// The parameter.
        parameter: String,
        /// Where.
        place: FailedStep,
    },
    /// A frozen parameter has changed.
    #[error("{place}: frozen parameter has changed: `{parameter}`")]
    FrozenMoved {
        /// The parameter.
        parameter: String,
        /// Where.
        place: FailedStep,
    },
    /// What was saved does not read back as it was.
    #[error("{path}: saved parameter reads back differently: `{parameter}`")]
    DrySave {
        /// The file.
        path: PathBuf,
        /// The parameter.
        parameter: String,
    },
    /// Another replica has ended, and what was to be done together cannot be.
    #[error("replica `{rank}`: another replica has ended")]
    ReplicaLost {
        /// The one that waited.
        rank: usize,
    },
    /// Replicas have other weights than the first.
    #[error("step {step}: the weights of replica `{rank}` are not those of replica `0`")]
    ReplicasDiffer {
        /// The first such one.
        rank: usize,
        /// Updates made.
        step: u64,
    },
    /// Signal handlers could not be installed.
    #[error("cannot install signal handlers: {source}")]
    Signals {
        /// The operating system's answer.
        source: io::Error,
    },
}

impl Error {
    /// What to do next, where something helps.
    pub fn hint(&self) -> Option<String> {
        let switch =
            |key: &str| Some(format!("`{key} = false` in [checks] switches this check off"));
        match self {
            Self::File(e) => e.hint(),
            Self::Model(e) => e.hint(),
            Self::Lora(e) => e.hint(),
            Self::Plan(e) => e.hint(),
            Self::NoHead { .. } => Some("name the adapter of a reward model".into()),
            Self::Checkpointing { .. } => {
                Some("leave `checkpointing` out, and bound memory by `micro_batch`".into())
            }
            Self::Recipe(e) => e.hint(),
            Self::Export(e) => e.hint(),
            Self::StageNotRun { start, .. } => {
                Some(format!("run that first: `temper run RECIPE --stage {start}`, or all stages"))
            }
            Self::WriteTensors { .. } => {
                Some("the checkpoint before is intact; free some space and resume".into())
            }
            Self::TensorFile { .. } | Self::State { .. } => {
                Some("this checkpoint was written by another version; start the run anew".into())
            }
            Self::UnmatchedGroup { .. } => Some(
                "a pattern is a glob over checkpoint names such as \
                 `model.layers.0.self_attn.q_proj.weight`; with `lora`, over those of the factors"
                    .into(),
            ),
            Self::OtherOptimizer { found, .. } => Some(format!(
                "resume with `kind = \"{found}\"`, or start the stage again under another name"
            )),
            Self::NoUsableCheckpoint { path, .. } => Some(format!(
                "restore one from a backup, or remove `{}` to start the stage anew",
                path.display()
            )),
            Self::RecipeChanged { .. } => {
                Some("resume with the run's own recipe, or give the new one another name".into())
            }
            Self::InputsChanged { .. } => {
                Some("put the old files back, or start a run under another name".into())
            }
            Self::NonFiniteLoss { .. } | Self::NonFiniteGradient { .. } => Some(
                "lower the learning rate, lengthen the warm-up, or look at the samples with \
                 `temper data inspect`"
                    .into(),
            ),
            Self::NoTargets { .. } => switch("targets"),
            Self::FirstLoss { .. } => switch("first_loss"),
            Self::NoGradient { .. } | Self::Unmoved { .. } => switch("gradients"),
            Self::FrozenMoved { .. } => switch("frozen"),
            Self::DrySave { .. } => switch("dry_save"),
            Self::ReplicasDiffer { .. } => {
                Some("this is a fault in temper: please report it; `replicas = 1` goes on".into())
            }
            Self::ReplicaLost { .. } | Self::Signals { .. } => None,
        }
    }
}

/// One line each, indented under the message.
fn list(lines: &[String]) -> String {
    lines.iter().flat_map(|line| ["\n  ", line]).collect()
}
