//! `temper sweep`: trains a recipe with every combination of values, one run after the other, and compares the results.

mod grid;
mod planned;
mod results;

use std::collections::BTreeSet;

use planned::{Planned, PlannedRun};
use train::StopFlag;

use super::run::train_stages;
use super::{plan_loaded, print, print_summary};
use crate::args::{LogStyle, SweepArgs};
use crate::failure::{Failure, Result};
use crate::render::progress::{RunProgress, write_stderr};

pub(crate) fn run(args: &SweepArgs, log: LogStyle, threads: Option<usize>) -> Result<()> {
    let planned = planned::plan(args, log, threads)?;
    if args.dry_run {
        print(&planned.text())?;
        return print("ready: the same command without --dry-run trains them\n");
    }
    print_summary(&planned.text());
    let stop = train::signals::install()?;
    let mut failed = BTreeSet::new();
    let outcome = train_runs(&planned, &stop, &mut failed, log, threads);
    print_summary(&format!("\n{}", results::results(&planned, &failed)));
    outcome
}

/// Trains the runs that are not finished. A run that fails is added to `failed`, and the others are trained.
fn train_runs(
    planned: &Planned,
    stop: &StopFlag,
    failed: &mut BTreeSet<String>,
    log: LogStyle,
    threads: Option<usize>,
) -> Result<()> {
    let left = planned.runs.iter().filter(|run| !run.is_finished());
    for (idx, run) in left.enumerate() {
        if stop.is_requested() {
            return Err(stopped(log));
        }
        note(log, &announced(planned, run, idx));
        match train_run(run, log, threads) {
            Ok(()) => {}
            Err(failure) if failure.is_stop() => return Err(stopped(log)),
            Err(failure) => {
                failed.insert(run.name.clone());
                write_stderr(&failure.of(&run.name).text());
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let (n_failed, n_left) = (failed.len(), planned.n_left());
    Err(Failure::input(
        format!("{n_failed} of {n_left} runs failed"),
        "their errors are above; the same command trains them again and skips the finished ones",
    )
    .during_run())
}

/// The run is planned again, because all plans together would hold the data of all runs.
fn train_run(run: &PlannedRun, log: LogStyle, threads: Option<usize>) -> Result<()> {
    let loaded = recipe::load(&run.args.recipe, &run.args.set)?;
    let plan = plan_loaded(&loaded, &run.args, log, threads)?;
    train_stages(&plan, &run.args, log).map(|_| ())
}

fn announced(planned: &Planned, run: &PlannedRun, idx: usize) -> String {
    let pairs = planned.labels.iter().zip(&run.values);
    let values: Vec<String> = pairs.map(|(label, value)| format!("{label} = {value}")).collect();
    let (place, n) = (idx + 1, planned.n_left());
    format!("run {place} of {n}: {} ({})", values.join(", "), run.dir.display())
}

fn stopped(log: LogStyle) -> Failure {
    note(log, "the sweep stopped; the same command resumes it, and skips the finished runs");
    Failure::stopped()
}

fn note(log: LogStyle, text: &str) {
    RunProgress::new(log).note(text);
}
