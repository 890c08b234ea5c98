//! From what a user wrote to what will happen: paths found, tokenizer and model known, samples packed and counted,
//! costs estimated, and every check made that can fail before training. Holding a [`Plan`] means that the run can start.
//!
//! It trains no model and opens no weights; it may train a tokenizer and tokenise data, both kept under `runs/.cache`.

mod base;
mod cost;
mod error;
mod locate;
mod model;
pub mod optimizer;
mod paths;
mod plan_lora;
mod plan_ppo;
mod plan_stage;
mod replicas;
mod stage;
mod stage_plan;
mod starting_point;
mod tokenizers;
mod trained;

use std::path::PathBuf;

pub use base::{BASE_FILE, BaseFile, base_of, check_base, is_adapter, recorded_base, weights_hash};
pub use cost::Cost;
pub use error::{Error, Result};
pub use locate::{CHECKPOINTS_DIR, MODEL_DIR, locate_model};
pub use paths::{Paths, RUNS_DIR};
pub use stage::{DpoPlan, LoraPlan, PpoPlan, Stage, Start};
pub use stage_plan::StagePlan;

use recipe::{ChecksSection, Loaded, Recipe};

/// What the command line adds to a recipe.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--name`.
    pub name: Option<String>,
    /// `--stage`.
    pub stage: Option<String>,
    /// `--limit`.
    pub limit: Option<u64>,
    /// Where runs lie, if not in `runs` of the working directory.
    pub runs_dir: Option<PathBuf>,
    /// The kernels that will compute, for the memory estimate.
    pub kernel_path: arch::KernelPath,
}

/// A pipeline that can run.
#[derive(Debug)]
pub struct Plan {
    /// The run's name.
    pub name: String,
    /// What every draw derives from.
    pub seed: u64,
    /// Where it computes.
    pub device: String,
    /// The numbers that enter matrix products.
    pub precision: recipe::Precision,
    /// How many copies of the model share a step.
    pub replicas: usize,
    /// Threads, where the recipe says how many.
    pub threads: Option<usize>,
    /// Where things lie.
    pub paths: Paths,
    /// What the user wrote.
    pub recipe: Recipe,
    /// The recipe with overrides applied, as it goes into the run's folder.
    pub recipe_toml: String,
    /// Checks of the first minute.
    pub checks: ChecksSection,
    /// The stages asked for, in order.
    pub stages: Vec<StagePlan>,
}

/// Whoever watches a plan being made.
pub trait Watch {
    /// A tokenizer is being trained; called once when that begins.
    fn training_tokenizer(&mut self);
    /// Data is being tokenised.
    fn tokenising(&mut self, stage: &str, progress: &data::Progress);
}

/// Nobody watches.
#[derive(Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn training_tokenizer(&mut self) {}
    fn tokenising(&mut self, _stage: &str, _progress: &data::Progress) {}
}

/// Plans a recipe: everything that can fail is tried, in the order in which a run would meet it.
pub fn plan(loaded: &Loaded, request: &Request, watch: &mut dyn Watch) -> Result<Plan> {
    let paths = Paths::new(loaded, request);
    let wanted = plan_stage::check_wanted(loaded, request.stage.as_deref())?;
    let tokenizer = tokenizers::of_recipe(loaded, request, &paths, watch)?;
    let mut stages: Vec<StagePlan> = Vec::new();
    for section in loaded.recipe.stages() {
        let planned = plan_stage::plan_stage(
            loaded,
            request,
            &paths,
            section,
            tokenizer.as_ref(),
            &stages,
            watch,
        )?;
        stages.push(planned);
        if wanted == Some(section.name()) {
            break;
        }
    }
    if let Some(wanted) = wanted {
        // The stages before it were planned for their shapes alone.
        stages.retain(|stage| stage.name == wanted);
    }
    Ok(Plan {
        name: paths.name.clone(),
        seed: loaded.recipe.seed,
        device: loaded.recipe.device.clone(),
        precision: loaded.recipe.precision,
        replicas: loaded.recipe.replicas,
        threads: loaded.recipe.threads,
        recipe: loaded.recipe.clone(),
        recipe_toml: loaded.resolved_toml.clone(),
        checks: loaded.recipe.checks,
        stages,
        paths,
    })
}

impl Plan {
    /// Warnings about the models that stages read, each once.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = Vec::new();
        for warning in self.stages.iter().flat_map(|stage| &stage.warnings) {
            if !warnings.contains(warning) {
                warnings.push(warning.clone());
            }
        }
        warnings
    }
}
