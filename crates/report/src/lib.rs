//! The directory of a run, read without tensors: state and progress of its stages, metrics, samples, hashes; and the page that
//! shows them.
//!
//! Everything in the directory is foreign: a file that is missing, torn or damaged is a sentence in [`RunData::problems`] or
//! [`StageData::problems`], never an error of the whole page.

mod calibration;
mod curve_comparison;
mod facts;
mod json_file;
mod jsonl;
mod metrics;
mod numbers;
mod page;
mod panels;
mod plan_file;
mod report_file;
mod run;
mod samples;
mod stage;
mod time;

pub use calibration::{CALIBRATION_FILE, Calibration, CalibrationBin};
pub use curve_comparison::{Parting, part_at};
pub use facts::{LastValidation, final_validation, headline, higher_is_better, last_validation};
pub use metrics::{Metrics, Phase, Point, Series};
pub use page::{ComparedAnswers, ComparedVerdict, Comparison, comparison_page, page};
pub use panels::{Panel, PanelLine, panels};
pub use plan_file::{Machine, PLAN_FILE, PlanFile, PlannedSource, PlannedStage};
pub use report_file::{Outcome, REPORT_FILE, ReportFile, StageOutcome};
pub use run::{Launch, NotARun, RunData, RunState, is_run, runs_in};
pub use samples::Sample;
pub use stage::{Environment, FileHash, FinishedFile, StageData, StageState, size_of};
pub use time::{now, utc};

/// The page of a run, in its directory.
pub const PAGE_FILE: &str = "report.html";
/// How every page begins, so that only an earlier page is replaced by one.
pub const PAGE_START: &str = "<!doctype html>\n<!-- A page of Temper. -->\n";
