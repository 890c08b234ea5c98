//! Plans a recipe: resolves paths, reads tokenizer and model configuration, packs and counts samples, estimates costs,
//! and makes every check that can fail before training. A run that has a [`Plan`] can start.
//!
//! Planning opens no weights and trains no model. It may train a tokenizer and tokenize data; both are cached in
//! `runs/.cache`.

mod added_tokens;
mod answers;
mod base;
mod contamination;
mod cost;
mod error;
mod eval_tasks;
mod locate;
mod model;
pub mod optimizer;
mod paths;
mod plan_distill;
mod plan_grpo;
mod plan_kto;
mod plan_lora;
mod plan_ppo;
mod plan_rewards;
mod plan_stage;
mod prompt_layout;
mod replicas;
mod sample_prompts;
mod stage;
mod stage_plan;
mod starting_point;
mod tokenizers;
mod trained;
mod vocabularies;

use std::path::PathBuf;

pub use base::{
    BASE_FILE, BaseFile, base_of, check_base, is_adapter, packed_base_dtype, recorded_base,
    weight_files, weights_hash,
};
pub use cost::Cost;
pub use error::{Error, Result};
pub use eval_tasks::{BestMetric, EvalTask, EvalTasks, TASK_PREFIX, chat_items};
pub use locate::{
    CHECKPOINTS_DIR, FINISHED_FILE, MODEL_DIR, local_copy, locate_argument, locate_model,
    unfinished_note,
};
pub use paths::{Paths, RUNS_DIR};
pub use prompt_layout::{PassShape, PromptLayout};
pub use sample_prompts::{SamplePrompt, SamplePrompts};
pub use stage::{
    DistillPlan, DpoPlan, GrpoPlan, JudgePlan, KtoPlan, LoraPlan, MIN_SAMPLED_TOGETHER, PpoPlan,
    RewardModelPlan, RewardsPlan, Stage, Start, Work,
};
pub use stage_plan::StagePlan;
pub use tokenizers::train_tokenizer;

use recipe::{ChecksSection, Loaded, Recipe};
use tokenizer::Clock;

/// Options of the command line.
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
    /// Directory of all runs. Default: `runs` in the working directory.
    pub runs_dir: Option<PathBuf>,
    /// `--allow-commands`: whether rewards may start programs.
    pub allow_commands: bool,
    /// Kernels that the run will use, for the memory estimate.
    pub kernel_path: arch::KernelPath,
    /// Day that chat templates write. Default: the system's time, at each use.
    pub clock: Option<Clock>,
}

/// A checked pipeline, ready to run.
#[derive(Debug)]
pub struct Plan {
    /// Name of the run.
    pub name: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// Device to compute on.
    pub device: String,
    /// Type of the inputs of matrix products.
    pub precision: recipe::Precision,
    /// Number of replicas that share a step.
    pub replicas: usize,
    /// Number of threads, if the recipe sets it.
    pub threads: Option<usize>,
    /// Day that chat templates write, if it is fixed.
    pub clock: Option<Clock>,
    /// Directories of the run.
    pub paths: Paths,
    /// Recipe with overrides applied.
    pub recipe: Recipe,
    /// The same recipe as TOML, which is saved in the run directory.
    pub recipe_toml: String,
    /// Checks that stop a faulty run in its first minute.
    pub checks: ChecksSection,
    /// Stages to run, in order.
    pub stages: Vec<StagePlan>,
}

/// Receives progress events of planning.
pub trait Watch {
    /// Training of a tokenizer starts.
    fn training_tokenizer(&mut self);
    /// Another process is training the same tokenizer, for which this one waits.
    fn waiting_for_tokenizer(&mut self);
    /// Progress of tokenizing the data of `stage`.
    fn tokenizing(&mut self, stage: &str, progress: &data::Progress);
}

/// Ignores progress events.
#[derive(Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn training_tokenizer(&mut self) {}
    fn waiting_for_tokenizer(&mut self) {}
    fn tokenizing(&mut self, _stage: &str, _progress: &data::Progress) {}
}

/// Plans a recipe. Checks are made in the order in which a run would fail.
pub fn plan(loaded: &Loaded, request: &Request, watch: &mut dyn Watch) -> Result<Plan> {
    let paths = Paths::new(loaded, request)?;
    let wanted = plan_stage::check_stage_name(loaded, request.stage.as_deref())?;
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
        // Earlier stages were planned only because this one may start from them.
        stages.retain(|stage| stage.name == wanted);
    }
    Ok(Plan {
        name: paths.name.clone(),
        seed: loaded.recipe.seed,
        device: loaded.recipe.device.clone(),
        precision: loaded.recipe.precision,
        replicas: loaded.recipe.replicas,
        threads: loaded.recipe.threads,
        clock: request.clock,
        recipe: loaded.recipe.clone(),
        recipe_toml: loaded.resolved_toml.clone(),
        checks: loaded.recipe.checks,
        stages,
        paths,
    })
}

impl Plan {
    /// Warnings about the models that stages read, without repetitions.
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
