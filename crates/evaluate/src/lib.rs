//! Evaluation of models: loss, perplexity, bits per byte, accuracy on pairs, few-shot tasks; and replays of reference vectors
//! (`temper verify`).
//!
//! A mean is one sum divided by one count. Replays call the crates that train and generate.

mod compare;
mod error;
mod host_values;
mod measure;
mod pairs;
pub mod proof;
mod samples;
mod scorer;
mod selftest;
mod task_run;
mod token_bytes;
mod validation;
mod verify;

pub use compare::{Match, MatchResult, Verdict, WinRate, judge_by_model, judge_by_reward};
pub use error::{Error, Result};
pub use measure::{Measured, measure};
pub use pairs::{PairMetrics, pair_metrics, text_scores, text_scores_and_auxiliary};
pub use samples::{log_first_samples, log_samples, samples};
pub use scorer::{Answer, Scorer};
pub use selftest::selftest;
pub use task_run::{ScoredRow, TaskRun, run_pairs, run_task};
pub use validation::{evaluation, evaluation_of_scores, validation, validation_pairs};
pub use verify::{Outcome, Quantity, Report, Tolerance, verify, verify_on_base};
