//! The plan of one stage: data prepared and packed, steps counted, model and tokenizer checked against each other.

use std::collections::BTreeMap;

use arch::ModelConfig;
use data::{
    Content, Dataset, Holdout, PrepareOptions, Prepared, RunOptions, SampleKind, SourceSpec,
};
use recipe::{Loaded, Packing, PairKeys, Recipe, Stage, TrainKeys};
use tokenizer::Tokenizer;

use crate::cost::StepShape;
use crate::lora::{LoraPlan, plan_lora};
use crate::optimizer::state_bytes;
use crate::ppo::{PpoPlan, plan_ppo};
use crate::start::{self, Start};
use crate::trained::{check_groups, trained_parameters};
use crate::{Cost, Error, Paths, Request, Result, Watch, model, replicas, tokenizers};

/// What a stage does with its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Learns to continue documents.
    Pretrain,
    /// Learns to answer as the data answers.
    Sft,
    /// Learns to tell the better of two answers.
    Reward,
    /// Learns which of two answers to give.
    Dpo,
    /// Learns from the scores of a reward model.
    Ppo,
}

impl Algorithm {
    /// That of a section.
    pub(crate) fn of(stage: &Stage<'_>) -> Self {
        match stage.name {
            "sft" => Self::Sft,
            "reward" => Self::Reward,
            "dpo" => Self::Dpo,
            "ppo" => Self::Ppo,
            _ => Self::Pretrain,
        }
    }

    /// What it makes of its rows.
    pub(crate) fn reads(self) -> SampleKind {
        match self {
            Self::Pretrain => SampleKind::Documents,
            Self::Sft => SampleKind::Chats,
            Self::Reward | Self::Dpo => SampleKind::Pairs,
            Self::Ppo => SampleKind::Prompts,
        }
    }

    /// The keys of its pairs, where it learns from pairs.
    fn pair_keys(self, recipe: &Recipe) -> Option<&PairKeys> {
        match self {
            Self::Reward => recipe.reward.as_ref().map(|section| &section.input),
            Self::Dpo => recipe.dpo.as_ref().map(|section| &section.input),
            Self::Pretrain | Self::Sft | Self::Ppo => None,
        }
    }
}

/// One stage that can run.
#[derive(Debug)]
pub struct StagePlan {
    /// Its name, which is its section and its folder.
    pub name: String,
    /// What it does.
    pub algorithm: Algorithm,
    /// Where its weights come from.
    pub start: Start,
    /// The adapter that is trained in place of the weights.
    pub lora: Option<LoraPlan>,
    /// Other models that take part.
    pub ppo: Option<PpoPlan>,
    /// Whether `start` is an adapter that is merged into its base before the stage begins.
    pub merges_start: bool,
    /// The model's shape.
    pub config: ModelConfig,
    /// The tokenizer, with the chat template of this stage.
    pub tokenizer: Tokenizer,
    /// Its batches.
    pub dataset: Dataset,
    /// How it trains.
    pub keys: TrainKeys,
    /// Tokens of a row, or of each text of a pair.
    pub sequence_length: usize,
    /// Rows of a step, or pairs.
    pub rows_per_step: usize,
    /// Rows or pairs that go through the model at once, in each replica.
    pub micro_batch: usize,
    /// Steps in all.
    pub max_steps: u64,
    /// What it costs.
    pub cost: Cost,
    /// Hashes of everything it reads, by name; a resumed stage must find the same.
    pub inputs: BTreeMap<String, String>,
    /// What was read and is not acted on, or was filled in, as sentences.
    pub notes: Vec<String>,
}

impl StagePlan {
    /// The stages of the same run whose `model/` it reads.
    pub fn needs(&self) -> Vec<&str> {
        let value_lora = self.ppo.as_ref().and_then(|ppo| ppo.value_lora.as_ref());
        let adapters = self.lora.iter().chain(value_lora).filter_map(|lora| lora.adapter.as_ref());
        let roles = self.ppo.iter().flat_map(|ppo| [&ppo.reward, &ppo.value]);
        let starts = std::iter::once(&self.start).chain(adapters).chain(roles);
        starts
            .filter_map(|start| match start {
                Start::Stage(name) => Some(name.as_str()),
                Start::Fresh | Start::Directory(_) => None,
            })
            .collect()
    }
}

/// The stage that `--stage` names, if it names one.
pub(crate) fn check_wanted<'a>(
    loaded: &Loaded,
    wanted: Option<&'a str>,
) -> Result<Option<&'a str>> {
    let names: Vec<&str> = loaded.recipe.stages().iter().map(|stage| stage.name).collect();
    match wanted {
        Some(name) if !names.contains(&name) => {
            Err(Error::NoSuchStage { name: name.to_owned(), stages: names.join(", ") })
        }
        wanted => Ok(wanted),
    }
}

/// Plans one stage; `earlier` are the stages before it in the recipe.
pub(crate) fn plan_stage(
    loaded: &Loaded,
    request: &Request,
    paths: &Paths,
    stage: &Stage<'_>,
    of_recipe: Option<&Tokenizer>,
    earlier: &[StagePlan],
    watch: &mut dyn Watch,
) -> Result<StagePlan> {
    let begin = start::of_stage(loaded, paths, stage, earlier)?;
    let tokenizer = stage_tokenizer(loaded, &begin.start, of_recipe, earlier)?;
    let algorithm = Algorithm::of(stage);
    let template = match algorithm {
        Algorithm::Pretrain => None,
        Algorithm::Sft => Some(loaded.recipe.sft.as_ref().and_then(|s| s.chat_template.as_ref())),
        Algorithm::Reward | Algorithm::Dpo => {
            let keys = algorithm.pair_keys(&loaded.recipe);
            Some(keys.and_then(|keys| keys.chat_template.as_ref()))
        }
        Algorithm::Ppo => Some(loaded.recipe.ppo.as_ref().and_then(|s| s.chat_template.as_ref())),
    };
    let tokenizer = match template {
        Some(key) => tokenizers::with_template(loaded, paths, stage.name, key, &tokenizer)?,
        None => tokenizer,
    };
    let config = match &begin.config {
        Some(config) => config.clone(),
        None => model::fresh(loaded, &tokenizer)?,
    };
    let lora = match stage.lora {
        Some(keys) => {
            let path = match algorithm {
                Algorithm::Ppo => "ppo.policy.lora".to_owned(),
                _ => format!("{}.lora", stage.name),
            };
            Some(plan_lora(loaded, paths, &path, keys, &config, earlier)?)
        }
        None => None,
    };
    let ppo = match (algorithm, &loaded.recipe.ppo) {
        (Algorithm::Ppo, Some(section)) => {
            Some(plan_ppo(loaded, paths, section, &begin, &config, lora.as_ref(), earlier)?)
        }
        _ => None,
    };
    let optimizer = &stage.train.optimizer;
    let trained = trained_parameters(&config, algorithm, lora.as_ref(), ppo.as_ref())?;
    check_groups(loaded, &format!("{}.optimizer", stage.name), optimizer, &trained)?;
    let shapes = trained.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()));
    let optimizer_state = state_bytes(optimizer, shapes);
    let goes_on = lora.as_ref().and_then(|lora| lora.adapter.as_ref()) == Some(&begin.start);
    let merges_start = begin.is_adapter && !goes_on;
    let sequence_length = stage.sequence_length;
    model::check_fit(loaded, &config, &tokenizer, stage)?;
    replicas::check(loaded, stage, algorithm)?;
    let prepared = prepare(request, paths, stage, algorithm, &tokenizer, watch)?;
    let dataset = dataset(loaded, stage, algorithm, &prepared)?;
    check_targets(loaded, stage, &dataset)?;
    let rows_per_step = stage.rows_per_step;
    let replicas = loaded.recipe.replicas;
    let share = rows_per_step.div_ceil(replicas.max(1));
    let micro_batch = stage.train.micro_batch.unwrap_or(share).min(share);
    let max_steps = dataset.n_steps();
    let (kernel_path, checkpointing) = (request.kernel_path, stage.train.checkpointing);
    // Each card has a memory of its own.
    let n_together = if loaded.recipe.device == "cpu" { replicas } else { 1 };
    let shape = StepShape {
        sequence_length,
        rows_per_step,
        replicas,
        n_together,
        micro_batch,
        kernel_path,
        checkpointing,
        optimizer_state,
    };
    let mut cost = match (&ppo, &loaded.recipe.ppo) {
        (Some(ppo), Some(section)) => {
            Cost::of_ppo(&config, lora.as_ref(), ppo, section, max_steps, shape)
        }
        _ => Cost::of(&config, algorithm, lora.as_ref(), &dataset, shape),
    };
    if algorithm == Algorithm::Dpo
        && loaded.recipe.dpo.as_ref().is_some_and(|section| section.loss.has_reference())
    {
        cost.add_reference(&config, &dataset, stage.train.eval.as_ref(), sequence_length);
    }
    let mut inputs = BTreeMap::new();
    for (idx, key) in prepared.keys().enumerate() {
        inputs.insert(format!("{}.{}[{idx}]", stage.name, stage.data_key), key.to_owned());
    }
    inputs.insert("tokenizer".to_owned(), tokenizer.hash()?);
    Ok(StagePlan {
        name: stage.name.to_owned(),
        algorithm,
        start: begin.start,
        lora,
        ppo,
        merges_start,
        config,
        tokenizer,
        dataset,
        keys: stage.train.clone(),
        sequence_length,
        rows_per_step,
        micro_batch,
        max_steps,
        cost,
        inputs,
        notes: begin.notes,
    })
}

/// The recipe's tokenizer, else the one that belongs to what the stage starts from.
fn stage_tokenizer(
    loaded: &Loaded,
    start: &Start,
    of_recipe: Option<&Tokenizer>,
    earlier: &[StagePlan],
) -> Result<Tokenizer> {
    if let Some(tokenizer) = of_recipe {
        return Ok(tokenizer.clone());
    }
    let inherited = match start {
        Start::Stage(name) => {
            let previous = earlier.iter().find(|previous| previous.name == *name);
            previous.map(|previous| previous.tokenizer.clone())
        }
        Start::Directory(dir) => Some(Tokenizer::from_dir_or_file(dir)?),
        Start::Fresh => None,
    };
    inherited.ok_or_else(|| {
        Error::Recipe(loaded.spans.error(
            "model",
            "a new model needs a tokenizer",
            "its vocabulary is not known",
            Some("add [tokenizer] with `train` or `load`".to_owned()),
        ))
    })
}

fn prepare(
    request: &Request,
    paths: &Paths,
    stage: &Stage<'_>,
    algorithm: Algorithm,
    tokenizer: &Tokenizer,
    watch: &mut dyn Watch,
) -> Result<Prepared> {
    let specs = stage
        .data
        .iter()
        .map(|source| {
            SourceSpec::resolve(source, &paths.recipe_dir, &paths.data_dir, request.limit)
        })
        .collect::<data::Result<Vec<_>>>()?;
    fsio::create_dir_all(&paths.cache_dir)?;
    let content = match (algorithm, tokenizer.chat_template()) {
        (Algorithm::Sft, Some(template)) => Content::Chats(template),
        (Algorithm::Reward | Algorithm::Dpo, Some(template)) => Content::Pairs(template),
        (Algorithm::Ppo, Some(template)) => Content::Prompts(template),
        _ => Content::Documents,
    };
    let options = PrepareOptions {
        cache_dir: &paths.cache_dir,
        tokenizer,
        content,
        on_bad_row: stage.on_bad_row,
        max_bad_rows: stage.max_bad_rows,
    };
    Ok(data::prepare(&specs, &options, &mut |progress| watch.tokenising(stage.name, progress))?)
}

fn dataset(
    loaded: &Loaded,
    stage: &Stage<'_>,
    algorithm: Algorithm,
    prepared: &Prepared,
) -> Result<Dataset> {
    let keys = stage.train;
    let options = RunOptions {
        seed: loaded.recipe.seed,
        stage: stage.name.to_owned(),
        sequence_length: match (algorithm, &loaded.recipe.ppo) {
            (Algorithm::Ppo, Some(ppo)) => ppo.max_prompt_tokens,
            _ => stage.sequence_length,
        },
        rows_per_step: stage.rows_per_step,
        max_steps: keys.max_steps,
        epochs: keys.epochs,
        max_tokens: keys.max_tokens,
        holdout: keys
            .eval
            .as_ref()
            .filter(|eval| eval.holdout > 0.0)
            .map(|eval| Holdout { fraction: eval.holdout, by: eval.by }),
    };
    let recipe = &loaded.recipe;
    match (algorithm, &recipe.sft, algorithm.pair_keys(recipe)) {
        (Algorithm::Sft, Some(sft), _) => {
            Ok(Dataset::sft(prepared, &options, sft.packing, sft.overlong)?)
        }
        (Algorithm::Reward, _, Some(keys)) => {
            Ok(Dataset::pairs(prepared, &options, keys.overlong)?)
        }
        (Algorithm::Dpo, _, Some(keys)) => {
            Ok(Dataset::preferences(prepared, &options, keys.overlong)?)
        }
        (Algorithm::Ppo, ..) => Dataset::prompts(prepared, &options).map_err(|error| match error {
            data::Error::NoTargets { sequence_length } => Error::Recipe(loaded.spans.error(
                "ppo.max_prompt_tokens",
                format!("no prompt has at most {sequence_length} tokens"),
                "shorter than every prompt",
                Some("raise it: the chat template's marks count, too".to_owned()),
            )),
            other => Error::Data(other),
        }),
        _ => {
            let packing = loaded.recipe.pretrain.as_ref().map_or(Packing::default(), |p| p.packing);
            Ok(Dataset::pretrain(prepared, &options, packing)?)
        }
    }
}

/// Samples that lose every target by cutting teach nothing; more than a few mean that a length is wrong.
fn check_targets(loaded: &Loaded, stage: &Stage<'_>, dataset: &Dataset) -> Result<()> {
    const MOST: f64 = 0.01;
    let share = dataset.counts().share_without_targets();
    if !loaded.recipe.checks.targets || share <= MOST {
        return Ok(());
    }
    Err(Error::Recipe(loaded.spans.error(
        &format!("{}.sequence_length", stage.name),
        format!("{:.1} % of the samples have no target left after cutting", 100.0 * share),
        "too short for what they are asked",
        Some(
            "make it longer, or set `targets = false` in [checks]; `temper plan --list-cut` shows them"
                .to_owned(),
        ),
    )))
}
