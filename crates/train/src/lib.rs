//! Shared parts of all training stages: functions and small structs, never a trainer class.
//!
//! A stage keeps its loop in its own crate. It starts by [`start_or_resume`], sums losses and [`Gradients`] over
//! micro-batches, makes updates by [`apply_update`], and ends by [`finish_stage`]. A [`StageRun`] owns its directory, logs,
//! checkpoints and reaction to signals.

mod checkpoint;
mod checks;
mod collective;
mod environment;
mod error;
mod gradients;
pub mod health;
mod leftovers;
mod metrics;
mod model_file;
mod optimizer;
mod parameters;
mod progress;
mod reference_logprobs;
mod replicas;
mod resume_rules;
mod run_dir;
mod saved_tensors;
mod schedule;
pub mod signals;
mod stage_run;
mod stage_state;
mod step_place;
mod trackers;
mod trainable_params;
mod update;
mod weight_average;
mod weight_inputs;
mod weights;

pub use checkpoint::{
    CHECKPOINT_FORMAT, Checkpoint, CheckpointInfo, RECIPE_FILE, STATE_FILE, TrainState,
    checkpoint_name, checkpoint_steps, load_newest, retain, save_checkpoint,
};
pub use checks::{Checks, FirstLoss};
pub use collective::{Collective, InProcess, Nccl, SingleReplica};
pub use environment::{BURN_VERSION, Environment};
pub use error::{Error, Result};
pub use gradients::{GradNorm, Gradients};
pub use metrics::{EvalRow, LogLengths, SampleRow, StepRow};
pub use model_file::{MODEL_FILE, save_model};
pub use optimizer::{OPTIMIZER_FILE, Optimizer, clip_scale};
pub use parameters::ParameterNames;
pub use progress::{Event, Progress, Recorder, Silent};
pub use reference_logprobs::{
    REFERENCE_DIR, ReferenceLogprobs, ReferenceSource, SavedReference, add_reference,
    load_reference, reference_key, reference_of, save_reference,
};
pub use replicas::on_replicas;
pub use resume_rules::{Differences, differences, flat_keys};
pub use run_dir::{Finished, RunDir, RunDirGuard, StageDir, StageStatus, recorded_environment};
pub use schedule::lr;
pub use signals::StopFlag;
pub use stage_run::{StageRun, StageSettings, StepReport};
pub use stage_state::{
    Context, Dropout, LeaderFirst, Outcome, StageState, average_of, finish_stage, start_or_resume,
    start_or_resume_with, weights_to_export, with_checkpointing, write_checkpoint, write_model,
};
pub use step_place::{FailedStep, StepPlace};
pub use trackers::{EventWriter, Tracking};
pub use trainable_params::{compare_trained, load_trained, save_trained};
pub use update::{Learner, StepSums, apply_update, compare_replicas};
pub use weight_average::{AVERAGE_FILE, WeightAverage};
pub use weight_inputs::{WeightInputs, model_hashes, weight_inputs};
pub use weights::{
    BaseModelCache, ModelSource, SaveFormat, TrainedModel, WeightSource, Weights, first_weights,
    resumed_weights, start_dir,
};
