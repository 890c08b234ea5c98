//! Training against reference numbers and closed forms; checkpoints against faults.

// The tests damage files on purpose.
#![allow(clippy::disallowed_methods)]

mod adapters;
mod added_tokens;
mod checkpoints;
mod checks;
mod events;
mod golden;
mod leftovers;
mod not_finite;
mod optimizer;
mod optimizer_kinds;
mod recompute;
mod replicas;
mod resume_rules;
mod schedule;
mod stage_run;
mod toy;
