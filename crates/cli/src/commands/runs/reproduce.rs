//! `temper runs reproduce`: a run once more from its directory alone, compared with the first one.

use std::path::{Path, PathBuf};

use report::{RunData, RunState, StageData, StageState, part_at};

use super::locate;
use crate::args::{LogStyle, RecipeArgs, ReproduceArgs};
use crate::commands::run::train_stages;
use crate::commands::{launch, plan_on_day, print};
use crate::failure::{Failure, Result};
use crate::render::progress::warn;
use crate::render::table::{counted, thousands};

pub(super) fn run(
    dir: &Path,
    args: &ReproduceArgs,
    log: LogStyle,
    threads: Option<usize>,
) -> Result<()> {
    let path = locate(dir, &args.run)?;
    let old = RunData::read(&path)?;
    if let RunState::Running { .. } = old.state {
        return Err(Failure::input(
            format!("the run is in progress: `{}`", path.display()),
            "reproduce it when it has finished",
        ));
    }
    let name = args.name.clone().unwrap_or_else(|| format!("{}-again", old.name));
    let new_path = Path::new(::plan::RUNS_DIR).join(&name);
    if fsio::is_present(&new_path) {
        return Err(Failure::input(
            format!("exists already: `{}`", new_path.display()),
            "choose another name with --name, or remove it with `temper runs rm`",
        ));
    }
    train_again(&path, &old, &name, args, log, threads)?;
    let new = RunData::read(&new_path)?;
    warn_of_environment(&old);
    let compared: Vec<(String, bool)> =
        old.stages.iter().filter_map(|s| compare(s, &new)).collect();
    for (line, _) in &compared {
        print(&format!("{line}\n"))?;
    }
    if compared.iter().all(|(_, agrees)| *agrees) {
        return print(&format!("{} and {} agree to the last bit\n", old.name, new.name));
    }
    print(&format!("{} and {} differ\n", old.name, new.name))?;
    Err(Failure::differs())
}

/// Trains the stages of a run under another name: its resolved recipe, and the options and the day of its command line.
fn train_again(
    path: &Path,
    old: &RunData,
    name: &str,
    args: &ReproduceArgs,
    log: LogStyle,
    threads: Option<usize>,
) -> Result<()> {
    let recorded = launch::read(path)?;
    let Some(text) = &old.recipe else {
        return Err(Failure::input(
            format!("no recipe.toml: `{}`", path.display()),
            "the run's directory is not complete",
        ));
    };
    // The name of the recipe decides where relative paths start.
    let loaded = recipe::parse(text.as_bytes(), &recorded.recipe, &[])?;
    let recipe = RecipeArgs {
        recipe: recorded.recipe,
        data_dir: args.data_dir.clone().or(recorded.data_dir),
        set: recorded.set,
        limit: recorded.limit,
        name: Some(name.to_owned()),
        stage: recorded.stage,
        allow_commands: args.allow_commands,
    };
    let threads = threads.or(loaded.recipe.threads);
    if let Some(products) = launch::bf16_products_of(path)? {
        kernels::set_bf16_products(products);
    }
    let plan = plan_on_day(&loaded, &recipe, launch::clock_of(path)?, log, threads)?;
    train_stages(&plan, &recipe, log)?;
    Ok(())
}

/// Warns of differences to the program and the processor of the first run, which can change the last bits.
fn warn_of_environment(old: &RunData) {
    let recorded = old.stages.iter().find_map(|stage| stage.environment.as_ref());
    let recorded = recorded.and_then(|found| serde_json::to_value(found).ok());
    let recorded = recorded.and_then(|found| serde_json::from_value(found).ok());
    let Some(recorded): Option<train::Environment> = recorded else { return };
    for difference in recorded.differences(&train::Environment::current()) {
        warn(&format!("results may differ in the last bits: {difference}"));
    }
}

/// Whether a stage of the first run agrees with that of the second one, as a line; `None` for a stage that has not begun.
fn compare(old: &StageData, new: &RunData) -> Option<(String, bool)> {
    if old.state == StageState::Waiting {
        return None;
    }
    let line = |text: String, agrees: bool| Some((format!("{:<10} {text}", old.name), agrees));
    let Some(new) = new.stages.iter().find(|stage| stage.name == old.name) else {
        return line("was not trained again".to_owned(), false);
    };
    let (n_steps, parting) = part_at(&old.metrics, &new.metrics);
    if let Some(at) = parting {
        let (was, is) = at.values;
        let step = thousands(at.step);
        return line(format!("differs from step {step}: {} {was} → {is}", at.metric), false);
    }
    let metrics = counted(n_steps, "logged step");
    if old.finished.is_none() {
        return line(format!("not finished before; {metrics} agree"), true);
    }
    let weights = |stage: &StageData| -> Vec<(PathBuf, String)> {
        let files = stage.model_files.iter().filter(|file| file.name.ends_with(".safetensors"));
        files.map(|file| (PathBuf::from(&file.name), file.sha256.clone())).collect()
    };
    let (was, is) = (weights(old), weights(new));
    if was.is_empty() {
        return line("has no recorded hashes of its model".to_owned(), false);
    }
    if was != is {
        return line(format!("{metrics} agree, and the weights differ"), false);
    }
    line(format!("{metrics} and all weights agree"), true)
}
