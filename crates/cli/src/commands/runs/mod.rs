//! `temper runs`: lists the stages of all runs, and shows, compares, repeats and removes runs.

mod diff;
mod list;
mod remove;
mod reproduce;
mod show;

use std::path::{Path, PathBuf};

use report::is_run;

use crate::args::{LogStyle, RunsArgs, RunsCommand};
use crate::failure::{Failure, Result};

pub(crate) fn run(args: &RunsArgs, log: LogStyle, threads: Option<usize>) -> Result<()> {
    match &args.command {
        None => list::run(args),
        Some(RunsCommand::Show(show)) => show::run(&args.dir, show),
        Some(RunsCommand::Diff(diff)) => diff::run(&args.dir, diff),
        Some(RunsCommand::Rm(remove)) => remove::run(&args.dir, remove),
        Some(RunsCommand::Reproduce(reproduce)) => {
            reproduce::run(&args.dir, reproduce, log, threads)
        }
    }
}

/// The directory of a run, which is given by its path or by its name in `dir`.
pub(super) fn locate(dir: &Path, run: &Path) -> Result<PathBuf> {
    let is_name = run.components().count() == 1 && run.file_name().is_some();
    let named = dir.join(run);
    if is_name && is_run(&named) {
        return Ok(named);
    }
    if is_run(run) {
        return Ok(run.to_owned());
    }
    Err(Failure::input(
        format!("no such run: `{}`", run.display()),
        "`temper runs` lists all runs; a run is given by its name or by its directory",
    ))
}
