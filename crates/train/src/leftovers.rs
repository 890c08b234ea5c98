//! Leftovers of killed processes in the directories of a run: what Temper has named and written, and nothing else.

use std::fs;
use std::path::Path;

use crate::checkpoint::{discard_dir, is_checkpoint_name};
use crate::{Error, Result};

/// Files of a run or a stage that are replaced as a whole.
const FILES: [&str; 9] = [
    "calibration.json",
    "finished.json",
    "launch.json",
    "plan.json",
    "recipe.toml",
    "report.html",
    "report.json",
    "status.json",
    "trackers.json",
];
/// Directories of a stage that appear whole, and what they are renamed to before they are removed.
const DIRS: [&str; 6] = ["base", "model", "model.old", "reference", "teacher", "value-base"];
/// A checkpoint before the first step, in the directory of checkpoints.
pub(crate) const DRY_SAVE: &str = "dry-save";

/// Removes temporary files and directories of a run or a stage.
pub(crate) fn remove_tmps(dir: &Path) -> Result<()> {
    fsio::remove_stale_tmps(dir, |name| FILES.contains(&name), |name| DIRS.contains(&name))?;
    Ok(())
}

/// Removes temporary directories of checkpoints.
pub(crate) fn remove_tmp_checkpoints(checkpoints: &Path) -> Result<()> {
    let is_own_dir = |name: &str| {
        let name = name.strip_suffix(".old").unwrap_or(name);
        name == DRY_SAVE || is_checkpoint_name(name)
    };
    fsio::remove_stale_tmps(checkpoints, |_| false, is_own_dir)?;
    Ok(())
}

/// Removes a directory that was renamed to its name as a whole, if there is one.
///
/// Errors: it has a file that its MANIFEST does not list, which is somebody else's and would be lost.
pub(crate) fn remove_whole_dir(dir: &Path) -> Result<()> {
    let Ok(found) = fs::symlink_metadata(dir) else { return Ok(()) };
    if !found.is_dir() {
        return Err(Error::ForeignFile { path: dir.to_path_buf() });
    }
    if let Some(name) = fsio::unlisted_names(dir)?.into_iter().next() {
        return Err(Error::ForeignFile { path: dir.join(name) });
    }
    discard_dir(dir)
}
