//! Commands, one file each. A command reads its arguments, calls other crates and prints.

pub(crate) mod bench;
pub(crate) mod cache;
pub(crate) mod chat;
pub(crate) mod compare;
mod confirm;
pub(crate) mod contamination;
pub(crate) mod devices;
mod estimates;
pub(crate) mod eval;
mod eval_tasks;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod get;
pub(crate) mod init;
pub(crate) mod inspect;
mod inspect_file;
mod launch;
pub(crate) mod merge;
mod merge_cost;
pub(crate) mod plan;
mod plan_evaluations;
mod plan_tasks;
mod plan_validation;
mod proven;
pub(crate) mod report;
mod resources;
mod rollouts;
pub(crate) mod run;
mod run_record;
pub(crate) mod runs;
pub(crate) mod score;
pub(crate) mod selftest;
pub(crate) mod serve;
mod served_models;
pub(crate) mod shell;
pub(crate) mod sweep;
mod teacher;
pub(crate) mod tokenizer;
pub(crate) mod verify;
pub(crate) mod watch;

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use ::tokenizer::Tokenizer;
use recipe::{BaseDtype, Precision};
use train::{BaseModelCache, TrainedModel};

use crate::args::{LogStyle, RecipeArgs};
use crate::failure::{Failure, Result};
use crate::render::printable::printable;
use crate::render::progress::{PlanProgress, warn};

/// Maximum size of a text that is tokenized as a whole. Tokens take a hundred times the memory of their text.
const TEXT_BYTES: usize = 1 << 20;

/// Refuses a JSON text that would take too much memory once it is parsed.
fn check_json_memory(text: &str, place: &str) -> Result<()> {
    if fsio::json_shape(text.as_bytes()).memory <= fsio::limits::JSON_MEMORY {
        return Ok(());
    }
    Err(Failure::input(
        format!("{place}: too many values in a JSON text"),
        "split it; texts may be long, lists and objects may not have millions of entries",
    ))
}

/// Writes to stdout, with control characters escaped.
pub(crate) fn print(text: &str) -> Result<()> {
    print_as_is(&printable(text))
}

/// Writes to stdout text without control characters but our own, or data for a program. A closed pipe ends the program without
/// an error, as is usual for command-line tools.
pub(crate) fn print_as_is(text: &str) -> Result<()> {
    crate::render::stderr::flush();
    let mut out = BufWriter::new(io::stdout().lock());
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::quiet()),
        Err(error) => Err(Failure::input(
            format!("cannot write to stdout: {error}"),
            "the result was not printed",
        )
        .during_run()),
    }
}

/// Prints the summary of work that is saved: a stdout that cannot be written to is no failure of it.
pub(crate) fn print_summary(text: &str) {
    crate::render::stderr::flush();
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        warn(&format!("cannot write the summary to stdout: {error}"));
    }
}

/// Opens the model of a MODEL argument with its tokenizer. `base` is the base model of an adapter that does not record it.
pub(crate) fn open_model<M: TrainedModel>(
    path: &Path,
    base: Option<&Path>,
    device: &str,
) -> Result<(M, Tokenizer)> {
    let device = kernels::device(device)?;
    open_model_among(&mut BaseModelCache::new(&device), path, base)
}

/// As [`open_model`], for generation: weights and matrix products have the named type.
pub(crate) fn open_model_as<M: TrainedModel>(
    dtype: &str,
    path: &Path,
    base: Option<&Path>,
    device: &str,
) -> Result<(M, Tokenizer)> {
    open_model_among(&mut bases_for_generation(dtype, device)?.keeping_blocks(), path, base)
}

/// An empty cache of models for generation, whose weights and matrix products have the named type. Models that are opened
/// with one cache share the weights of their base.
pub(crate) fn bases_for_generation(dtype: &str, device: &str) -> Result<BaseModelCache> {
    let precision = ::bench::precision(dtype, device)?;
    let device = kernels::device(device)?;
    kernels::set_precision(precision);
    let dtype =
        if precision == kernels::Precision::Bf16 { BaseDtype::Bf16 } else { BaseDtype::F32 };
    Ok(BaseModelCache::new(&device).storing(dtype))
}

/// As [`open_model`], with the weights that the cache has.
pub(crate) fn open_model_among<M: TrainedModel>(
    bases: &mut BaseModelCache,
    path: &Path,
    base: Option<&Path>,
) -> Result<(M, Tokenizer)> {
    let dir = ::plan::locate_argument(path)?;
    if let Some(note) = ::plan::unfinished_note(&path.display().to_string(), path, &dir) {
        warn(&note);
    }
    let Some(base) = base else {
        warn_of_unknown_keys(&::plan::recorded_base(&dir)?.unwrap_or_else(|| dir.clone()));
        let model = bases.open(&dir)?;
        return with_tokenizer(model, &dir);
    };
    if !::plan::is_adapter(&dir) {
        return Err(Failure::input(
            format!("not an adapter: `{}`", dir.display()),
            "--base is for adapters; this model has all its weights",
        ));
    }
    let base = ::plan::locate_argument(base)?;
    warn_of_unknown_keys(&base);
    let model = bases.open_on_base(&base, &dir)?;
    // A tokenizer in a PEFT directory is optional.
    let of_adapter = dir.join("tokenizer.json").is_file();
    with_tokenizer(model, if of_adapter { &dir } else { &base })
}

/// A model with the tokenizer of a directory, which refuses tokens that have no row in the model's embedding.
fn with_tokenizer<M: TrainedModel>(model: M, dir: &Path) -> Result<(M, Tokenizer)> {
    let tokenizer = Tokenizer::from_dir_or_file(dir)?;
    let n_rows = model::SavedModel::config(&model).vocab_size();
    Ok((model, tokenizer.for_embedding(n_rows)))
}

/// Warns of unknown keys in config.json of a model's directory. A file that cannot be read is reported when the
/// model is opened.
fn warn_of_unknown_keys(dir: &Path) {
    let warnings = arch::ModelInfo::read(dir).map(|info| info.warnings).unwrap_or_default();
    for warning in &warnings {
        warn(warning);
    }
}

/// Reads and plans a recipe.
pub(crate) fn plan_recipe(
    args: &RecipeArgs,
    log: LogStyle,
    threads: Option<usize>,
) -> Result<::plan::Plan> {
    if !args.recipe.is_file()
        && let Some(name) = run::name_of(&args.recipe)
    {
        return Err(Failure::input(
            format!("`{}` is a run, not a recipe", args.recipe.display()),
            format!("to continue it: temper resume {name}"),
        ));
    }
    let loaded = recipe::load(&args.recipe, &args.set)?;
    loaded.notes.iter().for_each(|note| warn(note));
    plan_loaded(&loaded, args, log, threads)
}

/// Plans a recipe that was read.
pub(crate) fn plan_loaded(
    loaded: &recipe::Loaded,
    args: &RecipeArgs,
    log: LogStyle,
    threads: Option<usize>,
) -> Result<::plan::Plan> {
    launch::check_paths(args)?;
    let name = args.name.as_deref().unwrap_or(&loaded.name);
    let clock = launch::clock_of(&Path::new(::plan::RUNS_DIR).join(name))?;
    plan_on_day(loaded, args, clock, log, threads)
}

/// As [`plan_loaded`], with the day that chat templates write.
fn plan_on_day(
    loaded: &recipe::Loaded,
    args: &RecipeArgs,
    clock: ::tokenizer::Clock,
    log: LogStyle,
    threads: Option<usize>,
) -> Result<::plan::Plan> {
    // Planning tokenizes on all threads, so their number is set before. `--threads` precedes the recipe.
    if let (None, Some(threads)) = (threads, loaded.recipe.threads) {
        kernels::set_threads(threads)?;
    }
    kernels::start_threads()?;
    let request = ::plan::Request {
        data_dir: args.data_dir.clone(),
        name: args.name.clone(),
        stage: args.stage.clone(),
        limit: args.limit,
        runs_dir: None,
        allow_commands: args.allow_commands,
        clock: Some(clock),
        kernel_path: kernel_path(&loaded.recipe.device)?,
    };
    // Devices are checked before any data is read.
    replica_devices(&loaded.recipe.device, loaded.recipe.replicas)?;
    let plan = ::plan::plan(loaded, &request, &mut PlanProgress::new(log))?;
    check_weights(&plan)?;
    Ok(plan)
}

/// Refuses models from elsewhere whose weights are not those that their config.json describes. Values are read when a stage
/// starts, and so are the models with a MANIFEST, whose hash is compared then.
fn check_weights(plan: &::plan::Plan) -> Result<()> {
    let mut seen = BTreeSet::new();
    for stage in &plan.stages {
        for (_, start) in stage.starts() {
            let ::plan::Start::Directory(dir) = start else { continue };
            let dir = match ::plan::recorded_base(dir) {
                Ok(Some(base)) => base,
                Ok(None) => dir.clone(),
                // The recipe names the base of such an adapter, which is a start of its own.
                Err(_) => continue,
            };
            if !fsio::is_present(dir.join(fsio::MANIFEST)) && seen.insert(dir.clone()) {
                model::check_weights(&dir)?;
            }
        }
    }
    Ok(())
}

/// The device of each replica: the first GPUs, or the CPU for all of them.
pub(crate) fn replica_devices(device: &str, replicas: usize) -> Result<Vec<kernels::Device>> {
    let of = |rank: usize| match device {
        "cuda" if replicas > 1 => kernels::device(&format!("{device}:{rank}")),
        _ => kernels::device(device),
    };
    Ok((0..replicas).map(of).collect::<kernels::Result<_>>()?)
}

/// Sets the precision of matrix products, and how their kernels are selected, for the whole process.
pub(crate) fn set_up_kernels(plan: &::plan::Plan) {
    kernels::set_deterministic(plan.recipe.deterministic);
    kernels::set_precision(match plan.precision {
        Precision::F32 => kernels::Precision::F32,
        Precision::Tf32 => kernels::Precision::Tf32,
        Precision::Bf16 => kernels::Precision::Bf16,
    });
}

/// Warning about a precision that is slow on this machine.
pub(crate) fn precision_note(plan: &::plan::Plan) -> Option<&'static str> {
    let is_slow = plan.device == "cpu"
        && plan.precision == Precision::Bf16
        && !kernels::is_fast_on_cpu(kernels::Precision::Bf16);
    is_slow.then_some(
        "precision: this processor multiplies bf16 no faster than f32, which is more accurate",
    )
}

/// The kernels that a device runs. An unusable device is reported before any data is read.
fn kernel_path(device: &str) -> Result<arch::KernelPath> {
    Ok(match kernels::kernel_set(&kernels::device(device)?) {
        kernels::KernelSet::Cpu => arch::KernelPath::Cpu,
        kernels::KernelSet::Generic => arch::KernelPath::Generic,
    })
}
