//! What every training stage shares: functions and small structs, never a trainer.
//!
//! A stage keeps its loop in its own crate and calls what stands here: the learning rate of a step,
//! gradients added up by name, the optimizer, checks of the first minute, and a [`StageRun`] that owns the
//! folder, the logs, the checkpoints and the signals. The crate deliberately has no loop.

mod checkpoint;
mod checks;
mod collective;
mod error;
mod gradients;
mod machine;
mod metrics;
mod model_file;
mod optimizer;
mod parameters;
mod progress;
mod replicas;
mod resume_rules;
mod run_dir;
mod schedule;
mod session;
pub mod signals;
mod start;
mod tensor_file;
mod tensorboard;
mod trained_file;
mod weights;

pub use checkpoint::{
    Best, CHECKPOINT_FORMAT, Checkpoint, CheckpointInfo, RECIPE_FILE, STATE_FILE, TrainState,
    checkpoint_name, checkpoint_steps, load_newest, retain, save_checkpoint,
};
pub use checks::{Checks, FailedStep, FirstLoss, StepPlace};
pub use collective::{Collective, InProcess, Nccl, SingleReplica};
pub use error::{Error, Result};
pub use gradients::{GradNorm, Gradients};
pub use machine::{BURN_VERSION, Machine};
pub use metrics::{EvalRow, LogLengths, SampleRow, StepRow};
pub use model_file::{MODEL_FILE, save_model};
pub use optimizer::{OPTIMIZER_FILE, Optimizer, clip_scale};
pub use parameters::ParameterNames;
pub use progress::{Event, Progress, Recorder, Silent};
pub use replicas::{compare_replicas, on_replicas};
pub use resume_rules::{Differences, differences};
pub use run_dir::{Finished, RunDir, StageDir, StageStatus};
pub use schedule::lr;
pub use session::{StageRun, StageSettings, StepReport};
pub use signals::StopFlag;
pub use start::{
    Context, Dropout, LeaderFirst, Outcome, StageState, start_or_resume, start_or_resume_with,
    with_checkpointing, write_checkpoint, write_model,
};
pub use tensorboard::EventWriter;
pub use trained_file::{compare_trained, load_trained, save_trained};
pub use weights::{
    BaseModelCache, ModelSource, SaveFormat, TrainedModel, WeightSource, Weights, first_weights,
    resumed_weights, start_dir,
};
