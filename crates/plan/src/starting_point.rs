//! Starting point of a stage: source and configuration of its first weights. Loads no weights.

use std::borrow::Cow;
use std::path::Path;

use arch::{Architecture, ModelConfig, ModelInfo, Peft};
use hub_local::Need;
use recipe::{Loaded, ModelSection, StageKeys, StageSection};

use crate::base::base_of;
use crate::error::AtKey;
use crate::locate::{locate_model, unfinished_note};
use crate::stage::{Stage, Start};
use crate::stage_plan::StagePlan;
use crate::{Error, Paths, Result, model};

/// Source of weights with their configuration.
pub(crate) struct StartingPoint {
    pub(crate) start: Start,
    /// None for a new model, whose vocabulary size follows from the tokenizer.
    pub(crate) config: Option<ModelConfig>,
    /// Whether the source is an adapter with a base model.
    pub(crate) is_adapter: bool,
    /// Whether the source has a score in place of the output layer; None for a new model.
    pub(crate) is_scalar: Option<bool>,
    /// Whether the adapter, once merged, leaves an output layer of its own to a tied model.
    pub(crate) unties: bool,
    /// Whether its directory has weights in 4 or 8 bits, without an adapter on them.
    pub(crate) is_packed: bool,
    pub(crate) notes: Vec<String>,
    /// Unknown keys in config.json, as sentences.
    pub(crate) warnings: Vec<String>,
}

/// Starting point of a stage: an earlier stage of the recipe, a directory, or `[model]`.
///
/// # Errors
/// There is none, or a stage that does not train a reward model starts from one.
pub(crate) fn of_stage(
    loaded: &Loaded,
    paths: &Paths,
    section: StageSection<'_>,
    keys: &StageKeys<'_>,
    earlier: &[StagePlan],
) -> Result<StartingPoint> {
    let Some(start) = keys.start else {
        return of_model_section(loaded, paths).at_key(loaded, "model.start");
    };
    let named = keys.weights.iter().find(|(_, value)| *value == start);
    let key = named.map_or_else(|| Cow::from("start"), |(key, _)| key.clone());
    let key = format!("{}.{key}", section.name());
    let point = of_name(paths, start, earlier).at_key(loaded, &key)?;
    if point.is_scalar == Some(true) && !matches!(section, StageSection::Reward(_)) {
        let message =
            format!("a reward model cannot be the start of [{}]: `{start}`", section.name());
        let label = "it has a score in place of the output layer";
        let hint = "start from the language model that it was trained from".to_owned();
        return Err(Error::Recipe(loaded.spans.error(&key, message, label, Some(hint))));
    }
    Ok(point)
}

/// Starting point for the name of an earlier stage or a path.
pub(crate) fn of_name(paths: &Paths, start: &str, earlier: &[StagePlan]) -> Result<StartingPoint> {
    if let Some(previous) = earlier.iter().find(|previous| previous.name == start) {
        return Ok(StartingPoint {
            start: Start::Stage(start.to_owned()),
            config: Some(previous.config.clone()),
            is_adapter: previous.lora.is_some(),
            is_scalar: Some(matches!(previous.kind, Stage::Reward(_))),
            is_packed: false,
            unties: previous.lora.as_ref().is_some_and(|lora| lora.layout.unties),
            notes: Vec::new(),
            warnings: Vec::new(),
        });
    }
    of_directory(paths, start)
}

fn of_model_section(loaded: &Loaded, paths: &Paths) -> Result<StartingPoint> {
    match &loaded.recipe.model {
        Some(ModelSection::Start(section)) => of_directory(paths, &section.start),
        // `recipe` refuses a stage that has neither `start` nor `[model]`.
        Some(_) | None => Ok(StartingPoint {
            start: Start::Fresh,
            config: None,
            is_adapter: false,
            is_scalar: None,
            unties: false,
            is_packed: false,
            notes: Vec::new(),
            warnings: Vec::new(),
        }),
    }
}

fn of_directory(paths: &Paths, start: &str) -> Result<StartingPoint> {
    let named = paths.input(start, Need::Model)?;
    let dir = locate_model(&named)?;
    let base = base_of(&dir)?;
    let weights = base.as_ref().unwrap_or(&dir);
    let info = ModelInfo::read(weights)?;
    model::check_files(weights)?;
    if base.is_some() {
        fsio::refuse_lfs_pointer(dir.join("adapter_model.safetensors"))?;
    }
    let unties = base.is_some() && unties(&dir, &info.config)?;
    let saves_head = base.is_some() && Peft::read(&dir)?.saves_head;
    let mut warnings = info.warnings;
    warnings.extend(unfinished_note(start, &named, &dir));
    Ok(StartingPoint {
        is_scalar: Some(saves_head || info.architecture == Architecture::SequenceClassifier),
        config: Some(info.config),
        is_adapter: base.is_some(),
        unties,
        is_packed: base.is_none() && info.quantization.is_some(),
        start: Start::Directory(dir),
        notes: info.notes,
        warnings,
    })
}

fn unties(adapter: &Path, config: &ModelConfig) -> Result<bool> {
    let peft = Peft::read(adapter)?;
    Ok(!peft.saves_head && peft.lora.layout(config)?.unties)
}
