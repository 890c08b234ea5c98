//! Errors of training. The hint of a failed check names the key that disables it.

use std::io;
use std::path::PathBuf;

use crate::step_place::FailedStep;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why training failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing a file.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// Reading or writing a model.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// Attaching, reading or writing an adapter.
    #[error(transparent)]
    Lora(#[from] lora::Error),
    /// Resolving paths of a plan.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// The adapter of a language model where a reward model is needed.
    #[error("{}: the adapter has no scalar head, so it is not a reward model", dir.display())]
    NoHead {
        /// The adapter's directory.
        dir: PathBuf,
    },
    /// Recomputing blocks saves no memory on the device.
    #[error("[{stage}] checkpointing: `block` is supported on the CPU only")]
    Checkpointing {
        /// The stage.
        stage: String,
    },
    /// Writing the files that describe a model.
    #[error(transparent)]
    Export(#[from] export::Error),
    /// A stage starts from one that is not finished.
    #[error("[{stage}] starts from [{start}], which is not finished")]
    StageNotRun {
        /// The stage that cannot start.
        stage: String,
        /// The stage that it needs.
        start: String,
    },
    /// The directory of the run is no longer the one that this process locked.
    #[error(
        "{path}: the run's directory was removed, moved or replaced while this process used it"
    )]
    RunDirMoved {
        /// Where it was.
        path: PathBuf,
    },
    /// A file that Temper did not write, in a directory that it replaces.
    #[error("{}: this file is not the run's, and the stage writes its own files here", path.display())]
    ForeignFile {
        /// The file.
        path: PathBuf,
    },
    /// Reading the recipe of a checkpoint.
    #[error(transparent)]
    Recipe(#[from] recipe::Error),
    /// A file of tensors that a checkpoint has and that cannot be read.
    #[error(transparent)]
    Tensors(#[from] tensor_file::Error),
    /// A file of tensors with unexpected content.
    #[error("{path}: {reason}")]
    TensorFile {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// A group of the optimizer has no parameters.
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
    /// Checkpoints exist, and all are damaged.
    #[error("{path}: all `{n_rejected}` checkpoints are damaged; the newest: {newest}")]
    NoUsableCheckpoint {
        /// The directory of checkpoints.
        path: PathBuf,
        /// Number of rejected ones.
        n_rejected: usize,
        /// Why the newest was rejected.
        newest: String,
    },
    /// The checkpoint whose weights are to be exported cannot be read.
    #[error("{path}: the checkpoint with the best evaluation cannot be exported: {reason}")]
    BestCheckpoint {
        /// The checkpoint.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// A run or checkpoint of another format than this version's.
    #[error(
        "{path}: made by {}: format `{found}`, this version reads format `{known}`",
        if found < known { "an older Temper" } else { "a newer Temper" }
    )]
    Format {
        /// The checkpoint or file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format of this version.
        known: u32,
    },
    /// A file of a stage or checkpoint cannot be parsed.
    #[error("{path}: {reason}")]
    State {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// A directory of a run cannot be listed.
    #[error("{path}: {source}")]
    Listing {
        /// The directory.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// No checkpoint of a stage has an undamaged recipe to compare with.
    #[error("{path}: no checkpoint of this stage has an undamaged recipe.toml")]
    NoRecordedRecipe {
        /// The newest checkpoint.
        path: PathBuf,
    },
    /// The recipe changed in a way that changes the training trajectory.
    #[error("{path}: the recipe differs from the recipe of this run:{}", list(differences))]
    RecipeChanged {
        /// The run directory.
        path: PathBuf,
        /// One line each.
        differences: Vec<String>,
    },
    /// Data, tokenizer or initial weights changed since the run started.
    #[error("{path}: inputs changed since this run started:{}", list(differences))]
    InputsChanged {
        /// The checkpoint.
        path: PathBuf,
        /// One line each.
        differences: Vec<String>,
    },
    /// A non-finite loss.
    #[error("{place}: loss is not finite: `{loss}`; the weights are those before this step")]
    NonFiniteLoss {
        /// The loss.
        loss: f64,
        /// Step and samples.
        place: FailedStep,
    },
    /// A non-finite gradient.
    #[error(
        "{place}: gradient is not finite: `{parameter}`; the weights are those before this step"
    )]
    NonFiniteGradient {
        /// The first parameter with such a gradient.
        parameter: String,
        /// Step and samples.
        place: FailedStep,
    },
    /// A step without targets.
    #[error("{place}: no position has a target")]
    NoTargets {
        /// Step and samples.
        place: FailedStep,
    },
    /// The first loss is outside the expected range.
    #[error("{place}: first loss is `{loss:.4}`, expected between {low:.2} and {high:.2}")]
    FirstLoss {
        /// The loss.
        loss: f64,
        /// Lower bound.
        low: f64,
        /// Upper bound.
        high: f64,
        /// Step and samples.
        place: FailedStep,
    },
    /// A trainable parameter never had a gradient.
    #[error("{place}: trainable parameter has had no gradient: `{parameter}`")]
    NoGradient {
        /// The parameter.
        parameter: String,
        /// Step and samples.
        place: FailedStep,
    },
    /// A trainable parameter has not changed.
    #[error("{place}: trainable parameter has not changed: `{parameter}`")]
    Unmoved {
        /// The parameter.
        parameter: String,
        /// Step and samples.
        place: FailedStep,
    },
    /// A frozen parameter has changed.
    #[error("{place}: frozen parameter has changed: `{parameter}`")]
    FrozenMoved {
        /// The parameter.
        parameter: String,
        /// Step and samples.
        place: FailedStep,
    },
    /// A saved parameter differs from the one in memory.
    #[error("{path}: parameter differs after saving and reading back: `{parameter}`")]
    DrySave {
        /// The file.
        path: PathBuf,
        /// The parameter.
        parameter: String,
    },
    /// Another replica exited during a collective operation.
    #[error("replica `{rank}`: another replica has exited")]
    ReplicaLost {
        /// The replica that waited.
        rank: usize,
    },
    /// The weights of replicas differ.
    #[error("step {step}: the weights of replica `{rank}` differ from those of replica `0`")]
    ReplicasDiffer {
        /// The first replica that differs.
        rank: usize,
        /// Number of updates made.
        step: u64,
    },
    /// A non-finite reference log-probability.
    #[error("{place}: the reference log-probability of an answer is not finite: `{logprob}`")]
    ReferenceNotFinite {
        /// File and line of the answer.
        place: String,
        /// The log-probability.
        logprob: f32,
    },
    /// An answer without a precomputed reference log-probability.
    #[error("{place}: no reference log-probability was precomputed for this answer")]
    NotInReference {
        /// File and line of the answer.
        place: String,
    },
    /// A non-finite log-probability of a distillation's teacher.
    #[error("{place}: a log-probability of the teacher is not finite")]
    TeacherNotFinite {
        /// File and line of the text.
        place: String,
    },
    /// A text without saved distributions of a distillation's teacher.
    #[error("{place}: the teacher's tokens were not computed for this text")]
    NotOfTeacher {
        /// File and line of the text.
        place: String,
    },
    /// The directory of the initial weights cannot be listed.
    #[error("{path}: cannot read: {source}")]
    StartDir {
        /// The directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Installing signal handlers.
    #[error("cannot install signal handlers: {source}")]
    Signals {
        /// The operating system's error.
        source: io::Error,
    },
}

impl Error {
    /// Whether the files or the recipe are at fault, not the run: nothing was trained, and trying again would not help.
    pub fn is_wrong_input(&self) -> bool {
        matches!(
            self,
            Self::InputsChanged { .. }
                | Self::ForeignFile { .. }
                | Self::RecipeChanged { .. }
                | Self::NoRecordedRecipe { .. }
                | Self::NoUsableCheckpoint { .. }
                | Self::Format { .. }
                | Self::OtherOptimizer { .. }
                | Self::UnmatchedGroup { .. }
                | Self::StageNotRun { .. }
                | Self::NoHead { .. }
                | Self::Checkpointing { .. }
                | Self::State { .. }
        )
    }

    /// A remedy, if there is one.
    pub fn hint(&self) -> Option<String> {
        let switch = |key: &str| Some(format!("`{key} = false` in [checks] disables this check"));
        match self {
            Self::File(e) => e.hint(),
            Self::Model(e) => e.hint(),
            Self::Lora(e) => e.hint(),
            Self::Plan(e) => e.hint(),
            Self::NoHead { .. } => Some("name the adapter of a reward model".into()),
            Self::Checkpointing { .. } => {
                Some("remove `checkpointing`; a smaller `micro_batch` saves memory, too".into())
            }
            Self::Recipe(e) => e.hint(),
            Self::Export(e) => e.hint(),
            Self::StageNotRun { start, .. } => {
                Some(format!("run it first: `temper run RECIPE --stage {start}`, or all stages"))
            }
            Self::RunDirMoved { .. } => Some(
                "nothing was written into the directory that is there now; a moved run can be resumed from its last \
                 checkpoint, by its new name"
                    .into(),
            ),
            Self::ForeignFile { .. } => Some("move it to another directory, and try again".into()),
            Self::Tensors(_) | Self::TensorFile { .. } => {
                Some("another version may have written this file; start a new run".into())
            }
            Self::State { .. } | Self::Listing { .. } => Some(
                "nothing was changed; if another version wrote it, continue with that one; otherwise correct the cause \
                 and try again"
                    .into(),
            ),
            Self::UnmatchedGroup { .. } => Some(
                "a pattern is a glob over checkpoint names such as \
                 `model.layers.0.self_attn.q_proj.weight`; with `lora`, over those of the factors"
                    .into(),
            ),
            Self::OtherOptimizer { found, .. } => Some(format!(
                "resume with `kind = \"{found}\"`, or start the stage again under another name"
            )),
            Self::NoUsableCheckpoint { .. } => Some(
                "restore one from a backup; to train the stage again from its start, use another `--name`".into(),
            ),
            Self::BestCheckpoint { .. } => Some(
                "restore it from a backup, or remove the directory of the stage to train it again"
                    .into(),
            ),
            Self::Format { found, known, .. } if found < known => Some(
                "continue with the version that made it, or train under another `--name`; its models \
                 in `model/` can still be used"
                    .into(),
            ),
            Self::Format { .. } => Some("update Temper, or train under another `--name`".into()),
            Self::NoRecordedRecipe { .. } => Some(
                "restore a checkpoint from a backup, or start a new run under another `--name`; nothing was changed".into(),
            ),
            Self::RecipeChanged { .. } => {
                Some("resume with the run's own recipe, or start a new run under another `--name`".into())
            }
            Self::InputsChanged { .. } => {
                Some("restore the old files, or start a new run under another `--name`".into())
            }
            Self::NonFiniteLoss { .. } | Self::NonFiniteGradient { .. } => Some(
                "lower the learning rate, lengthen the warm-up, or inspect the samples with \
                 `temper data inspect`"
                    .into(),
            ),
            Self::NoTargets { .. } => switch("targets"),
            Self::FirstLoss { .. } => switch("first_loss"),
            Self::NoGradient { .. } | Self::Unmoved { .. } => switch("gradients"),
            Self::FrozenMoved { .. } => switch("frozen"),
            Self::DrySave { .. } => switch("dry_save"),
            Self::ReplicasDiffer { .. } => {
                Some("this is a bug in Temper: please report it; `replicas = 1` avoids it".into())
            }
            Self::ReferenceNotFinite { .. } => {
                Some("evaluate the model that the stage starts from: `temper eval`".into())
            }
            Self::NotInReference { .. } => Some(
                "remove the directory `reference` of the stage; it is computed again".into(),
            ),
            Self::TeacherNotFinite { .. } => Some("evaluate the teacher: `temper eval`".into()),
            Self::NotOfTeacher { .. } => {
                Some("remove the directory `teacher` of the stage; it is computed again".into())
            }
            Self::StartDir { .. } => Some("check the stage's `start`".into()),
            Self::ReplicaLost { .. } | Self::Signals { .. } => None,
        }
    }
}

/// One line each, indented under the message.
fn list(lines: &[String]) -> String {
    lines.iter().flat_map(|line| ["\n  ", line]).collect()
}
