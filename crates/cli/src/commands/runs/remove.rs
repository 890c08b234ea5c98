//! `temper runs rm`: removes a run, or what its finished models do not need.

use std::path::{Path, PathBuf};

use fsio::Lock;
use report::{RunData, StageData, StageState, runs_in, size_of};

use super::locate;
use crate::args::RemoveArgs;
use crate::commands::confirm::confirmed;
use crate::commands::print;
use crate::failure::{Failure, Result};
use crate::render::table;

/// Directories of a finished stage that its model does not need.
const TEMPORARY: [&str; 2] = ["checkpoints", "reference"];

/// In the name of a run that is being removed, before the number of the process.
const REMOVED: &str = ".removed-";

pub(super) fn run(dir: &Path, args: &RemoveArgs) -> Result<()> {
    finish_removals(dir)?;
    let path = locate(dir, &args.run)?;
    check_is_own(&path)?;
    // Held until the end, so that no process starts on what is removed.
    let _lock = Lock::acquire(path.join("LOCK"))?;
    // The lock is this process's own.
    let run = RunData::read_ended(&path)?;
    check_readers(dir, &run)?;
    let removed = if args.keep_model { temporary(&run) } else { everything(&run) };
    if removed.is_empty() {
        return print("nothing to remove: no finished stage has checkpoints\n");
    }
    let total =
        removed.iter().map(|(_, bytes)| bytes).fold(0, |all, n| u64::saturating_add(all, *n));
    print(&listing(&run, &removed, total, args.keep_model))?;
    let question = format!("remove {}?", table::bytes(total));
    if !confirmed(&question, args.yes)? {
        return print("nothing was removed\n");
    }
    if args.keep_model {
        for (path, _) in &removed {
            fsio::remove_dir_all(path)?;
        }
    } else {
        remove_run(&path)?;
    }
    print(&format!("removed {}\n", table::bytes(total)))
}

/// Refuses what is not the directory of a run itself: a link, or a directory of something else.
fn check_is_own(path: &Path) -> Result<()> {
    let is_link = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    if is_link {
        let message = format!("a link, not the directory of a run: `{}`", path.display());
        return Err(Failure::input(message, "name the directory that it leads to"));
    }
    if !path.join("launch.json").is_file() {
        let message = format!("not started by `temper run`: `{}`", path.display());
        return Err(Failure::input(
            message,
            "a run's directory has a launch.json; remove others by hand",
        ));
    }
    Ok(())
}

/// Refuses the models of a run that another one, which is in progress, reads.
fn check_readers(dir: &Path, run: &RunData) -> Result<()> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let own = absolute(&run.path);
    for path in runs_in(dir).into_iter().filter(|path| absolute(path) != own) {
        if Lock::holder(path.join("LOCK")).is_none() {
            continue;
        }
        let other = RunData::read(&path)?;
        let plans = other.plan.iter().flat_map(|plan| &plan.stages);
        let reads = |model: &&String| absolute(Path::new(model)).starts_with(&own);
        if let Some(model) = plans.flat_map(|stage| &stage.models).find(reads) {
            return Err(Failure::input(
                format!("`{}` is in progress and reads `{model}`", other.name),
                "wait until it has finished",
            ));
        }
    }
    Ok(())
}

fn everything(run: &RunData) -> Vec<(PathBuf, u64)> {
    let entries = std::fs::read_dir(&run.path).into_iter().flatten().flatten();
    let mut paths: Vec<(PathBuf, u64)> = entries
        .map(|entry| {
            let path = entry.path();
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let file = entry.metadata().map_or(0, |metadata| metadata.len());
            let bytes = if is_dir { size_of(&path) } else { file };
            (path, bytes)
        })
        .collect();
    paths.sort();
    paths
}

/// Files that the models of finished stages do not need. A stage that is not finished keeps its checkpoints: they are all it has.
fn temporary(run: &RunData) -> Vec<(PathBuf, u64)> {
    let finished = |stage: &&StageData| stage.state == StageState::Finished;
    // A link leads to what is not the run's.
    let is_own = |dir: &PathBuf| std::fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir());
    let stages = run.stages.iter().filter(finished).map(|stage| run.path.join(&stage.name));
    let stages = stages.filter(is_own);
    let dirs = stages.flat_map(|stage| TEMPORARY.map(|name| stage.join(name)));
    dirs.filter(is_own).map(|dir| (dir.clone(), size_of(&dir))).collect()
}

fn listing(run: &RunData, removed: &[(PathBuf, u64)], total: u64, keep_model: bool) -> String {
    let name = |path: &Path| {
        let relative = path.strip_prefix(&run.path).unwrap_or(path);
        relative.display().to_string()
    };
    let mut rows: Vec<Vec<String>> = removed
        .iter()
        .map(|(path, bytes)| vec![format!("  {}", name(path)), table::bytes(*bytes)])
        .collect();
    rows.push(vec!["  all".to_owned(), table::bytes(total)]);
    let mut text = format!("{}\n{}", run.path.display(), table::columns(&rows, &[1]));
    let unfinished = run.stages.iter().filter(|stage| {
        keep_model && stage.state != StageState::Finished && !stage.checkpoints.is_empty()
    });
    for stage in unfinished {
        text += &format!("  {} is not finished and keeps its checkpoints\n", stage.name);
    }
    text
}

/// Removes what is left of runs whose removal was interrupted, by a signal or an error.
fn finish_removals(dir: &Path) -> Result<()> {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    for name in names.filter(|name| name.starts_with('.') && name.contains(REMOVED)) {
        let path = dir.join(&name);
        // Another process may be removing it.
        let is_dir = std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
        if !is_dir || Lock::holder(path.join("LOCK")).is_some() {
            continue;
        }
        let bytes = size_of(&path);
        fsio::remove_dir_all(&path)?;
        print(&format!("removed {}, what an interrupted removal had left\n", table::bytes(bytes)))?;
    }
    Ok(())
}

/// Removes a run under another name first, so that no half of it can be taken for a run. The name says what to do with it if this
/// process is interrupted.
fn remove_run(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hidden = path.with_file_name(format!(".{name}{REMOVED}{}", std::process::id()));
    fsio::rename(path, &hidden)?;
    fsio::remove_dir_all(&hidden)?;
    Ok(())
}
