//! The page of a run: a finished one against a snapshot, and the ways in which a run's directory can be incomplete.

mod broken_runs;
mod compared_answers;
mod finished_run;
mod mutated_files;
mod support;
