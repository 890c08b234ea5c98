//! What a stage starts from. Loads no weights.

use std::path::PathBuf;

use arch::{Description, ModelConfig};
use recipe::{Loaded, ModelSection, Stage};

use crate::stage::StagePlan;
use crate::{Paths, Result, locate_model, model};

/// Where a stage's first weights come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// New random weights.
    Fresh,
    /// A stage of the same run, by its name; its `model/` is there once it has ended.
    Stage(String),
    /// A Hugging Face directory, or a checkpoint.
    Directory(PathBuf),
}

/// A start with the shape that it gives.
pub(crate) struct Begin {
    pub(crate) start: Start,
    /// None where the shape waits for the tokenizer's size.
    pub(crate) config: Option<ModelConfig>,
    pub(crate) notes: Vec<String>,
}

/// Finds out where a stage starts: an earlier stage of the recipe, a directory, or `[model]`.
pub(crate) fn of_stage(
    loaded: &Loaded,
    paths: &Paths,
    stage: &Stage<'_>,
    earlier: &[StagePlan],
) -> Result<Begin> {
    let Some(start) = stage.start else {
        return of_model_section(loaded, paths);
    };
    if let Some(previous) = earlier.iter().find(|previous| previous.name == start) {
        return Ok(Begin {
            start: Start::Stage(start.to_owned()),
            config: Some(previous.config.clone()),
            notes: Vec::new(),
        });
    }
    of_directory(paths, start)
}

fn of_model_section(loaded: &Loaded, paths: &Paths) -> Result<Begin> {
    match &loaded.recipe.model {
        Some(ModelSection::Start(section)) => of_directory(paths, &section.start),
        // The recipe's own check refuses a stage that has neither `start` nor `[model]`.
        Some(_) | None => Ok(Begin { start: Start::Fresh, config: None, notes: Vec::new() }),
    }
}

fn of_directory(paths: &Paths, start: &str) -> Result<Begin> {
    let dir = locate_model(&paths.input(start))?;
    let description = Description::read(&dir)?;
    model::check_files(&dir)?;
    Ok(Begin {
        start: Start::Directory(dir),
        config: Some(description.config),
        notes: description.notes,
    })
}
