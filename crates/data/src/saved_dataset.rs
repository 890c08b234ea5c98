//! Directories that `datasets.save_to_disk` wrote: the files that state.json lists, and no others.
//!
//! Beside them the library stores its caches (`cache-*.arrow`), which are results of other computations.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::files::SourceFiles;
use crate::splits::choose_name;

const STATE: &str = "state.json";
const SPLITS: &str = "dataset_dict.json";

#[derive(Deserialize)]
struct State {
    #[serde(rename = "_data_files")]
    data_files: Option<Vec<StateFile>>,
    #[serde(rename = "_indices_data_files")]
    indices_files: Option<Vec<StateFile>>,
    #[serde(rename = "_split")]
    split: Option<String>,
}

#[derive(Deserialize)]
struct StateFile {
    filename: String,
}

#[derive(Deserialize)]
struct DatasetDict {
    splits: Vec<String>,
}

/// Files of a saved dataset, or of one split of several; `None` if the directory is no saved dataset.
pub(crate) fn saved_dataset(directory: &Path, split: Option<&str>) -> Result<Option<SourceFiles>> {
    if directory.join(SPLITS).is_file() {
        let dict: DatasetDict = read(&directory.join(SPLITS))?;
        let n_splits = dict.splits.len();
        let name = choose_name(directory, dict.splits, split)?;
        let inside = directory.join(fsio::basename_only(&name)?);
        let Some(mut files) = state_files(&inside, None)? else {
            return Err(Error::bad_file(&inside, format!("no {STATE} of a saved dataset")));
        };
        let choice = files.choice.take().unwrap_or_default();
        files.choice = Some(format!("split `{name}` of {n_splits}: {choice}"));
        return Ok(Some(files));
    }
    state_files(directory, split)
}

/// Files that a state.json lists.
fn state_files(directory: &Path, split: Option<&str>) -> Result<Option<SourceFiles>> {
    let path = directory.join(STATE);
    if !path.is_file() {
        return Ok(None);
    }
    let state: State = read(&path)?;
    let Some(data_files) = state.data_files else { return Ok(None) };
    if let Some(split) = split {
        choose_name(directory, state.split.into_iter().collect(), Some(split))?;
    }
    let locate = |files: Vec<StateFile>| -> Result<Vec<PathBuf>> {
        files.into_iter().map(|file| locate(directory, &file.filename)).collect()
    };
    let paths = locate(data_files)?;
    let indices = locate(state.indices_files.unwrap_or_default())?;
    if paths.is_empty() {
        return Err(Error::EmptyDirectory { path: directory.to_path_buf() });
    }
    let order = if indices.is_empty() { "" } else { ", rows by its indices" };
    let files = if paths.len() == 1 { "file" } else { "files" };
    let choice = Some(format!("saved dataset: {} {files} of {STATE}{order}", paths.len()));
    Ok(Some(SourceFiles { paths, indices, choice, ..SourceFiles::default() }))
}

/// A file of the directory by the name that its state.json has.
fn locate(directory: &Path, name: &str) -> Result<PathBuf> {
    let path = directory.join(fsio::basename_only(name)?);
    if path.is_file() { Ok(path) } else { Err(Error::NotFound { path, nearest: None, get: None }) }
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let text = fsio::read_text_capped(path, fsio::limits::CONFIG_BYTES)?;
    serde_json::from_str(&text)
        .map_err(|error| Error::bad_file(path, format!("not valid: {error}")))
}
