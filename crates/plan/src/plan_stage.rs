//! Plans one stage: prepares and packs its data, counts its steps, and checks that model, tokenizer and data fit together.

use std::collections::BTreeMap;

use arch::ModelConfig;
use data::{
    Content, Dataset, Holdout, PrepareOptions, Prepared, RunOptions, SourceReport, SourceSpec,
};
use recipe::{Loaded, SampleKind, Samples, StageKeys, StageSection};
use tokenizer::Tokenizer;

use crate::added_tokens::AddedTokens;
use crate::contamination::overlaps;
use crate::cost::{Cost, StepShape, n_reference};
use crate::error::AtKey;
use crate::eval_tasks::EvalTasks;
use crate::optimizer::{average_bytes, state_bytes};
use crate::plan_distill::{n_saved_targets, plan_distill};
use crate::plan_grpo::plan_grpo;
use crate::plan_lora::plan_lora;
use crate::plan_ppo::plan_ppo;
use crate::sample_prompts::SamplePrompts;
use crate::stage::{LoraPlan, Stage, Start};
use crate::stage_plan::StagePlan;
use crate::starting_point;
use crate::trained::{check_groups, trained_parameters};
use crate::{Error, Paths, Request, Result, Watch, answers, model, plan_kto, replicas, tokenizers};

/// Checks that the recipe has the stage that `--stage` names.
pub(crate) fn check_stage_name<'a>(
    loaded: &Loaded,
    wanted: Option<&'a str>,
) -> Result<Option<&'a str>> {
    let names: Vec<&str> = loaded.recipe.stages().iter().map(|stage| stage.name()).collect();
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
    section: StageSection<'_>,
    of_recipe: Option<&Tokenizer>,
    earlier: &[StagePlan],
    watch: &mut dyn Watch,
) -> Result<StagePlan> {
    let (name, keys) = (section.name(), section.keys());
    let starting_point = starting_point::of_stage(loaded, paths, section, &keys, earlier)?;
    let tokenizer = stage_tokenizer(loaded, &starting_point.start, of_recipe, earlier)?;
    let own_config = starting_point.config.as_ref().filter(|_| of_recipe.is_none());
    let (tokenizer, left_out) = tokenizers::fitting(tokenizer, own_config);
    let tokenizer = tokenizers::with_added_tokens(tokenizer, keys.added_tokens)?;
    let tokenizer = tokenizers::with_eos_token(loaded, name, keys.eos_token, tokenizer)?;
    let sample_kind = keys.samples.kind();
    let mut notes = starting_point.notes.clone();
    notes.extend(left_out);
    let tokenizer = match sample_kind {
        SampleKind::Documents => tokenizer,
        SampleKind::Chats | SampleKind::Pairs | SampleKind::Completions | SampleKind::Prompts => {
            let key = keys.chat_template;
            let tokenizer =
                tokenizers::with_template(loaded, request, paths, name, key, &tokenizer)?;
            notes.extend(tokenizers::turn_notes(&tokenizer)?);
            tokenizer
        }
    };
    let mut config = match &starting_point.config {
        Some(config) => config.clone(),
        None => model::fresh(loaded, &tokenizer)?,
    };
    let grows = AddedTokens::plan(loaded, name, &keys, &starting_point, &mut config, &tokenizer)?;
    if let Some(grows) = &grows {
        notes.push(grows.note.clone());
    }
    let is_scalar = matches!(section, StageSection::Reward(_));
    let lora_beside = |config: &ModelConfig| -> Result<Option<LoraPlan>> {
        let path = format!("{name}.{}", keys.lora_key);
        let plan = |lora| plan_lora(loaded, paths, &path, lora, config, is_scalar, earlier);
        keys.lora.map(plan).transpose()
    };
    let mut lora = lora_beside(&config)?;
    let continues =
        lora.as_ref().and_then(|lora| lora.adapter.as_ref()) == Some(&starting_point.start);
    let merges_start = starting_point.is_adapter && !continues;
    let mut warnings = starting_point.warnings.clone();
    if let (Some(added), Some(lora)) = (&grows, &lora) {
        added.check_adapter(loaded, &format!("{name}.{}", keys.lora_key), lora)?;
        warnings.extend(added.untrained(lora, &config, is_scalar));
    }
    if starting_point.is_packed && lora.is_none() {
        return Err(Error::Recipe(
            loaded.spans.error(
                &format!("{name}.start"),
                "weights in 4 or 8 bits cannot be trained".to_owned(),
                "packed by bitsandbytes",
                Some(
                    "train an adapter with `lora`, or unpack the weights with `temper export`"
                        .to_owned(),
                ),
            ),
        ));
    }
    if merges_start && starting_point.unties {
        // The merged weights have an output layer of their own.
        config = config.untied()?;
        lora = lora_beside(&config)?;
    }
    let mut of_others = Vec::new();
    let mut stage = Stage::new(
        section,
        |section| {
            let lora = lora.as_ref();
            plan_ppo(loaded, request, paths, section, &starting_point, lora, earlier, &mut warnings)
        },
        |section| {
            let lora = lora.as_ref();
            plan_grpo(loaded, request, paths, section, &starting_point, lora, earlier)
        },
        |section| plan_distill(loaded, paths, section, &tokenizer, earlier, &mut of_others),
    )?;
    warnings.extend(of_others);
    if let Stage::Grpo(grpo) = &stage {
        warnings.extend(grpo.warnings.iter().cloned());
    }
    let optimizer = &keys.train.optimizer;
    let trained = trained_parameters(&config, &stage, lora.as_ref());
    check_groups(loaded, &format!("{name}.optimizer"), optimizer, &trained)?;
    let shapes = trained.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()));
    let average = keys.train.ema.map_or(0, |_| average_bytes(&trained));
    let optimizer_state = state_bytes(optimizer, shapes).saturating_add(average);
    model::check_fit(loaded, &config, &tokenizer, name, &keys)?;
    replicas::check(loaded, name, &stage, &keys)?;
    let eval = keys.train.eval.as_ref();
    let eval_tasks = EvalTasks::plan(loaded, paths, name, eval, &tokenizer, is_scalar)?;
    let Data { prepared, sources, specs } =
        prepare(loaded, request, paths, name, &keys, &tokenizer, watch)?;
    for overlap in overlaps(&eval_tasks.tasks, &specs, sample_kind, paths)? {
        let list = if overlap.n_found > 0 { &mut warnings } else { &mut notes };
        list.push(overlap.sentence());
    }
    let dataset = dataset(loaded, name, &keys, &prepared)?;
    check_targets(loaded, name, &keys, &dataset)?;
    warnings.extend(without_rows(name, &dataset, &sources));
    let sample_prompts =
        SamplePrompts::plan(loaded, name, &keys, &tokenizer, &config, &dataset, is_scalar)?;
    if let Stage::Dpo(dpo) = &mut stage
        && dpo.section.has_reference()
    {
        dpo.n_reference_pairs = n_reference(&dataset, keys.train.eval.as_ref());
    }
    if let Stage::Distill(distill) = &mut stage {
        distill.n_saved_targets = n_saved_targets(&distill.section, &dataset);
    }
    if let Stage::Kto(kto) = &mut stage {
        notes.extend(plan_kto::complete(loaded, name, kto, &dataset)?);
    }
    if let Some((of_recipe, rewards)) = stage.rewards() {
        notes.extend(answers::check(loaded, name, of_recipe, &rewards.stated, &dataset, &sources)?);
    }
    let step = step_shape(loaded, request, &keys, optimizer_state);
    let cost = Cost::of(&config, &stage, lora.as_ref(), &dataset, sample_kind, step);
    let mut inputs = BTreeMap::new();
    for (idx, key) in prepared.keys().enumerate() {
        inputs.insert(format!("{name}.{}[{idx}]", keys.data_key), key.to_owned());
    }
    inputs.insert("tokenizer".to_owned(), tokenizer.hash()?);
    let programs = stage.rewards().map(|(_, rewards)| rewards.programs.clone());
    inputs.extend(programs.unwrap_or_default());
    for task in &eval_tasks.tasks {
        inputs.insert(format!("task {}", task.task.name()), tasks::items_hash(&task.items));
    }
    Ok(StagePlan {
        name: name.to_owned(),
        kind: stage,
        start: starting_point.start,
        lora,
        merges_start,
        grows_vocabulary: grows.is_some_and(|added| added.n_new > 0),
        config,
        tokenizer,
        sample_kind,
        sources,
        max_steps: dataset.n_steps(),
        dataset,
        keys: keys.train.clone(),
        eval_tasks,
        sample_prompts,
        sequence_length: keys.sequence_length,
        rows_per_step: step.rows_per_step,
        micro_batch: step.micro_batch,
        cost,
        inputs,
        notes,
        warnings,
    })
}

/// Sources of which the run reads no row, because of their weight.
fn without_rows(stage: &str, dataset: &Dataset, sources: &[SourceReport]) -> Vec<String> {
    let unread = dataset.sources_without_rows();
    let unread = unread.into_iter().filter_map(|(idx, weight)| Some((sources.get(idx)?, weight)));
    let warning = |(source, weight): (&SourceReport, f64)| {
        format!(
            "[{stage}] no row of `{}` is trained on: with its weight, {weight}, the run ends before the first one",
            source.path
        )
    };
    unread.map(warning).collect()
}

/// Sizes of a step on each replica.
fn step_shape(
    loaded: &Loaded,
    request: &Request,
    keys: &StageKeys<'_>,
    optimizer_state: u64,
) -> StepShape {
    let replicas = loaded.recipe.replicas;
    let rows_per_step = keys.rows_per_step.saturating_mul(keys.texts_per_row);
    let share = rows_per_step.div_ceil(replicas.max(1));
    StepShape {
        sequence_length: keys.sequence_length,
        rows_per_step,
        replicas,
        // Each GPU has its own memory.
        n_together: if loaded.recipe.device == "cpu" { replicas } else { 1 },
        micro_batch: keys.train.micro_batch.unwrap_or(share).min(share),
        kernel_path: request.kernel_path,
        checkpointing: keys.train.checkpointing,
        optimizer_state,
    }
}

/// The recipe's tokenizer, or else that of the starting weights.
fn stage_tokenizer(
    loaded: &Loaded,
    start: &Start,
    of_recipe: Option<&Tokenizer>,
    earlier: &[StagePlan],
) -> Result<Tokenizer> {
    if let Some(tokenizer) = of_recipe {
        // An earlier stage may have added tokens or named another end-of-text token.
        let changed = earlier.iter().find(|previous| {
            *start == Start::Stage(previous.name.clone())
                && (previous.tokenizer.vocab_size(), previous.tokenizer.eos())
                    != (tokenizer.vocab_size(), tokenizer.eos())
        });
        return Ok(changed.map_or(tokenizer, |previous| &previous.tokenizer).clone());
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
            "the vocabulary is unknown",
            Some("add [tokenizer] with `train` or `load`".to_owned()),
        ))
    })
}

/// The data of a stage.
struct Data {
    prepared: Prepared,
    sources: Vec<SourceReport>,
    specs: Vec<SourceSpec>,
}

fn prepare(
    loaded: &Loaded,
    request: &Request,
    paths: &Paths,
    name: &str,
    keys: &StageKeys<'_>,
    tokenizer: &Tokenizer,
    watch: &mut dyn Watch,
) -> Result<Data> {
    let specs = keys
        .data
        .iter()
        .enumerate()
        .map(|(idx, source)| {
            let dirs = (&paths.recipe_dir, &paths.data_dir);
            let key = format!("{name}.{}[{idx}].path", keys.data_key);
            let mut spec =
                SourceSpec::resolve(source, dirs.0, dirs.1, request.limit).at_key(loaded, &key)?;
            spec.answers = keys.answers.iter().map(|template| (*template).clone()).collect();
            Ok(spec)
        })
        .collect::<Result<Vec<_>>>()?;
    fsio::create_dir_all(&paths.cache_dir)?;
    let template = || {
        let no_template = || Error::NoChatTemplate { stage: name.to_owned() };
        tokenizer.chat_template().ok_or_else(no_template)
    };
    let content = match keys.samples.kind() {
        SampleKind::Documents => Content::Documents,
        SampleKind::Chats => Content::Chats(template()?, keys.samples.chat_targets()),
        SampleKind::Pairs => Content::Pairs(template()?),
        SampleKind::Completions => Content::Completions(template()?),
        SampleKind::Prompts => Content::Prompts(template()?),
    };
    let options = PrepareOptions {
        cache_dir: &paths.cache_dir,
        tokenizer,
        content,
        on_bad_row: keys.on_bad_row,
        max_bad_rows: keys.max_bad_rows,
        check_prompts: loaded.recipe.checks.prompt_ids,
    };
    let prepared =
        data::prepare(&specs, &options, &mut |progress| watch.tokenizing(name, progress))?;
    let mut sources = Vec::with_capacity(specs.len());
    for spec in &specs {
        sources.extend(data::describe_source(
            spec,
            keys.samples.kind(),
            tokenizer.chat_template(),
        )?);
    }
    Ok(Data { prepared, sources, specs })
}

fn dataset(
    loaded: &Loaded,
    name: &str,
    keys: &StageKeys<'_>,
    prepared: &Prepared,
) -> Result<Dataset> {
    let eval = keys.train.eval.as_ref().filter(|eval| eval.share() > 0.0);
    let options = RunOptions {
        seed: loaded.recipe.seed,
        stage: name.to_owned(),
        sequence_length: keys.sample_length,
        rows_per_step: keys.rows_per_step,
        max_steps: keys.train.max_steps,
        epochs: keys.train.epochs,
        max_tokens: keys.train.max_tokens,
        holdout: eval.map(|eval| Holdout { fraction: eval.share(), by: eval.by }),
    };
    match keys.samples {
        Samples::Documents { packing } => Ok(Dataset::pretrain(prepared, &options, packing)?),
        Samples::Chats { packing, overlong, targets: _ } => {
            Ok(Dataset::sft(prepared, &options, packing, overlong)?)
        }
        Samples::ScoredPairs { overlong } => Ok(Dataset::pairs(prepared, &options, overlong)?),
        Samples::AnswerPairs { overlong } => {
            Ok(Dataset::preferences(prepared, &options, overlong)?)
        }
        Samples::Completions { overlong } => {
            Ok(Dataset::completions(prepared, &options, overlong)?)
        }
        Samples::Prompts => {
            let key = format!("{name}.{}", keys.added_length_key.unwrap_or(keys.length_key));
            Dataset::prompts(prepared, &options)
                .map_err(|error| no_prompt_fits(loaded, &key, error))
        }
    }
}

fn no_prompt_fits(loaded: &Loaded, key: &str, error: data::Error) -> Error {
    let data::Error::NoTargets { sequence_length, .. } = error else { return Error::Data(error) };
    Error::Recipe(loaded.spans.error(
        key,
        format!("no prompt has at most {sequence_length} tokens"),
        "every prompt is longer",
        Some("raise it; the tokens of the chat template count too".to_owned()),
    ))
}

/// Refuses a stage in which more than 1 % of the samples have no target: the row length is probably wrong, or answers are
/// missing.
fn check_targets(
    loaded: &Loaded,
    name: &str,
    keys: &StageKeys<'_>,
    dataset: &Dataset,
) -> Result<()> {
    const MAX_SHARE: f64 = 0.01;
    let share = dataset.counts().share_without_targets();
    if !loaded.recipe.checks.targets || share <= MAX_SHARE {
        return Ok(());
    }
    Err(Error::Recipe(loaded.spans.error(
        &format!("{name}.{}", keys.length_key),
        format!("{:.1} % of the samples have no target", 100.0 * share),
        "too short for these samples, unless they have no answer to learn",
        Some(
            "raise it, leave rows without an answer out with `where`, or set `targets = false` in [checks]; \
             `temper plan --list-cut` lists the samples"
                .to_owned(),
        ),
    )))
}
