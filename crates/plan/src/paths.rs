//! Directories of a run. Names of files in them are decided elsewhere.

use std::path::{Path, PathBuf};

use hub_local::{Environment, Need, Reference};
use recipe::{DATA_PREFIX, Loaded};

use crate::{Request, Result};

/// Default directory of all runs, in the working directory.
pub const RUNS_DIR: &str = "runs";
/// Tokenized data and trained tokenizers, shared by all runs.
const CACHE_DIR: &str = ".cache";
/// Environment variable of the data directory. `--data-dir` precedes it; the recipe's key follows.
const DATA_ENV: &str = "TEMPER_DATA";

/// Directories of one run.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Name of the run.
    pub name: String,
    /// Directory of the recipe, where its relative paths start.
    pub recipe_dir: PathBuf,
    /// Data directory, where `data:` paths start.
    pub data_dir: PathBuf,
    /// Directory of the run, `runs/NAME`.
    pub run_dir: PathBuf,
    /// Cache of all runs, `runs/.cache`.
    pub cache_dir: PathBuf,
}

impl Paths {
    /// Errors: `--name` is not the name of one directory.
    pub(crate) fn new(loaded: &Loaded, request: &Request) -> Result<Self> {
        let recipe_dir = loaded.dir().to_path_buf();
        let key = loaded.recipe.data_dir.as_ref().map(|dir| recipe_dir.join(dir));
        let data_dir = request
            .data_dir
            .clone()
            .or_else(|| std::env::var_os(DATA_ENV).map(PathBuf::from))
            .or(key)
            .unwrap_or_else(|| PathBuf::from("data"));
        let name = request.name.clone().unwrap_or_else(|| loaded.name.clone());
        fsio::basename_only(&name)?;
        let runs = request.runs_dir.as_deref().unwrap_or(Path::new(RUNS_DIR));
        Ok(Self {
            run_dir: runs.join(&name),
            cache_dir: runs.join(CACHE_DIR),
            name,
            recipe_dir,
            data_dir,
        })
    }

    /// Path of a model or a template in the recipe: in the data directory, relative to the recipe, or, if that does not
    /// exist, relative to the working directory, as in `runs/x/sft`. `hf:OWNER/MODEL` is the copy of that repository in
    /// `models`, by the same rule, or in the cache of huggingface_hub.
    pub(crate) fn input(&self, path: &str, need: Need) -> Result<PathBuf> {
        if let Some(reference) = Reference::parse(path) {
            let roots = [self.recipe_dir.as_path(), Path::new("")];
            return Ok(hub_local::locate(&reference?, need, &roots, &Environment::of_process())?);
        }
        if path.starts_with(DATA_PREFIX) {
            return Ok(recipe::resolve(path, &self.recipe_dir, &self.data_dir));
        }
        let relative = self.recipe_dir.join(path);
        Ok(if relative.exists() { relative } else { PathBuf::from(path) })
    }
}
