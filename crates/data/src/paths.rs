//! From the path of a source to the list of its files, in an order that is the same on every machine.
//!
//! Symbolic links to directories are not followed in a directory, because they may form a loop. A pattern follows them, to a
//! limited depth.

use std::path::{Path, PathBuf};

use hub_local::{Environment, Need, Reference};
use recipe::Format;

use crate::error::{Error, Result};
use crate::files::SourceFiles;
use crate::formats::{format_name, format_of};
use crate::limits;
use crate::location::normalized;
use crate::saved_dataset::saved_dataset;
use crate::splits;

/// Path of a source on this machine. `data:` paths start at `data_dir`, relative paths at the recipe's directory.
/// `hf:datasets/OWNER/NAME` is the copy of that data set in `datasets`, beside the recipe or in the working directory, or in the
/// cache of huggingface_hub.
///
/// A `data:` path that leaves the data directory is an error.
pub fn resolve(path: &str, recipe_dir: &Path, data_dir: &Path) -> Result<PathBuf> {
    let bad = |problem| Error::BadPath { path: path.to_owned(), problem };
    if path.contains('\0') {
        return Err(bad("a path cannot contain a zero byte"));
    }
    if let Some(reference) = Reference::parse(path) {
        let roots = [recipe_dir, Path::new("")];
        return Ok(hub_local::locate(&reference?, Need::Data, &roots, &Environment::of_process())?);
    }
    let inside = path.strip_prefix(recipe::DATA_PREFIX);
    if inside.unwrap_or(path).is_empty() {
        return Err(bad("the path is empty"));
    }
    match inside {
        Some(inside) if is_confined(Path::new(inside)) => Ok(normalized(&data_dir.join(inside))),
        Some(_) => Err(bad("a `data:` path must stay under the data directory")),
        None => Ok(normalized(&recipe_dir.join(path))),
    }
}

fn is_confined(path: &Path) -> bool {
    use std::path::Component;
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Files of a resolved path, sorted: the file itself, the data files of a directory, or the matches of a pattern.
///
/// In a directory, hidden files are ignored, and so are files of unknown formats or of another format than `format`.
/// Where names show splits, only the files of `split` are used, by default those of `train`. A directory that
/// `datasets.save_to_disk` wrote has the files that its state.json lists.
pub fn expand(path: &Path, format: Option<Format>, split: Option<&str>) -> Result<SourceFiles> {
    if path.is_dir() {
        return match saved_dataset(path, split)? {
            Some(saved) if matches!(format, None | Some(Format::Arrow)) => Ok(saved),
            Some(_) => Err(Error::BadPath {
                path: path.display().to_string(),
                problem: "a saved dataset has files of the format `arrow`",
            }),
            None => directory_files(path, format, split),
        };
    }
    if split.is_some() {
        let problem = "`split` applies to a directory";
        return Err(Error::BadPath { path: path.display().to_string(), problem });
    }
    if path.is_file() {
        return Ok(vec![path.to_path_buf()].into());
    }
    let text = path.to_string_lossy();
    if text.contains(['*', '?', '[']) && !fsio::is_present(path) {
        return Ok(pattern_files(&text, format)?.into());
    }
    // A directory entry of another kind is refused when it is opened, with the reason.
    if fsio::is_present(path) { Ok(vec![path.to_path_buf()].into()) } else { Err(not_found(path)) }
}

fn directory_files(
    directory: &Path,
    format: Option<Format>,
    split: Option<&str>,
) -> Result<SourceFiles> {
    let mut files = Vec::new();
    collect(directory, 0, &mut files)?;
    files.retain(|file| match (format_of(file), format) {
        (Some(found), Some(wanted)) => found == wanted,
        (found, None) => found.is_some(),
        (None, Some(_)) => false,
    });
    if files.is_empty() {
        return Err(Error::EmptyDirectory { path: directory.to_path_buf() });
    }
    files.sort();
    let (files, choice) = splits::choose(directory, files, split)?;
    let mut formats: Vec<&str> =
        files.iter().filter_map(|file| format_of(file)).map(format_name).collect();
    formats.sort_unstable();
    formats.dedup();
    if formats.len() > 1 {
        return Err(Error::MixedFormats {
            path: directory.to_path_buf(),
            formats: formats.join(", "),
        });
    }
    Ok(SourceFiles { choice, ..files.into() })
}

fn collect(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    if depth > limits::DIRECTORY_DEPTH {
        return Err(too_many(directory, "depth of directories", depth, limits::DIRECTORY_DEPTH));
    }
    let entries = std::fs::read_dir(directory).map_err(|error| Error::io(directory, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Error::io(directory, error))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().map_err(|error| Error::io(&path, error))?;
        if kind.is_dir() {
            collect(&path, depth + 1, files)?;
        } else if kind.is_file() || (kind.is_symlink() && path.is_file()) {
            files.push(path);
        }
        if files.len() > limits::SOURCE_FILES {
            return Err(too_many(directory, "number of files", files.len(), limits::SOURCE_FILES));
        }
    }
    Ok(())
}

fn too_many(path: &Path, what: &'static str, value: usize, limit: usize) -> Error {
    Error::TooLarge { path: path.to_path_buf(), what, value: value as u64, limit: limit as u64 }
}

fn pattern_files(pattern: &str, format: Option<Format>) -> Result<Vec<PathBuf>> {
    // The crate glob panics on a name that it cannot compare, which is better than to leave the file out.
    let mut files = fsio::panics::caught(|| matched_files(pattern)).map_err(|_| Error::BadPath {
        path: pattern.to_owned(),
        problem: "a directory that the pattern searches has a name that is not UTF-8: rename it, or give the directory instead \
                  of a pattern",
    })??;
    if files.is_empty() {
        return Err(Error::PatternMatchesNothing { pattern: pattern.to_owned() });
    }
    if format.is_none()
        && let Some(file) = files.iter().find(|file| format_of(file).is_none())
    {
        return Err(Error::UnknownFormat { path: file.clone() });
    }
    files.sort();
    Ok(files)
}

/// The files that match a pattern, in any order.
fn matched_files(pattern: &str) -> Result<Vec<PathBuf>> {
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let matches = glob::glob_with(pattern, options).map_err(|_| Error::BadPath {
        path: pattern.to_owned(),
        problem: "the pattern does not parse",
    })?;
    let mut files = Vec::new();
    // Links to directories that form a loop are searched in depth first.
    let deepest = Path::new(pattern).components().count() + limits::DIRECTORY_DEPTH;
    for found in matches {
        let path = found.map_err(|error| {
            let location = error.path().to_path_buf();
            Error::Io { path: location, source: error.into() }
        })?;
        let depth = path.components().count();
        if depth > deepest {
            return Err(too_many(&path, "depth of directories", depth, deepest));
        }
        if path.is_file() {
            files.push(path);
        }
        if files.len() > limits::SOURCE_FILES {
            let location = Path::new(pattern);
            return Err(too_many(location, "number of files", files.len(), limits::SOURCE_FILES));
        }
    }
    Ok(files)
}

fn not_found(path: &Path) -> Error {
    Error::NotFound { path: path.to_path_buf(), nearest: fsio::nearest_path(path), get: None }
}
