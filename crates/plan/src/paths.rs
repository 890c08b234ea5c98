//! Where a run reads and writes. Decides no file names inside those folders.

use std::path::{Path, PathBuf};

use recipe::{DATA_PREFIX, Loaded};

use crate::Request;

/// The folder of all runs, in the working directory.
pub const RUNS_DIR: &str = "runs";
/// Tokenised data and trained tokenizers, shared by all runs.
const CACHE_DIR: &str = ".cache";
/// Names the data directory, after `--data-dir` and before the recipe's key.
const DATA_ENV: &str = "TEMPER_DATA";

/// The folders of one run.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The run's name.
    pub name: String,
    /// The recipe's folder: relative paths start here.
    pub recipe_dir: PathBuf,
    /// `data:` paths start here.
    pub data_dir: PathBuf,
    /// `runs/NAME`.
    pub run_dir: PathBuf,
    /// `runs/.cache`.
    pub cache_dir: PathBuf,
}

impl Paths {
    pub(crate) fn new(loaded: &Loaded, request: &Request) -> Self {
        let recipe_dir = loaded.dir().to_path_buf();
        let key = loaded.recipe.data_dir.as_ref().map(|dir| recipe_dir.join(dir));
        let data_dir = request
            .data_dir
            .clone()
            .or_else(|| std::env::var_os(DATA_ENV).map(PathBuf::from))
            .or(key)
            .unwrap_or_else(|| PathBuf::from("data"));
        let name = request.name.clone().unwrap_or_else(|| loaded.name.clone());
        let runs = request.runs_dir.as_deref().unwrap_or(Path::new(RUNS_DIR));
        Self {
            run_dir: runs.join(&name),
            cache_dir: runs.join(CACHE_DIR),
            name,
            recipe_dir,
            data_dir,
        }
    }

    /// A path of the recipe that names a model or a template: under the data directory, beside the recipe, or, where
    /// nothing lies there, in the working directory, as `runs/x/sft` does.
    pub(crate) fn input(&self, path: &str) -> PathBuf {
        if path.starts_with(DATA_PREFIX) {
            return recipe::resolve(path, &self.recipe_dir, &self.data_dir);
        }
        let beside = self.recipe_dir.join(path);
        if beside.exists() { beside } else { PathBuf::from(path) }
    }
}
