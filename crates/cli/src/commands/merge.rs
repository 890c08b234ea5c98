//! `temper merge`: the weighted sum of several models of one shape, or of several adapters on one base model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arch::{Architecture, Dtype, ModelInfo, Peft};
use evaluate::proof::{ProvenModel, SourceAnswers};
use export::Options;
use model::{CausalLm, SavedModel, ScalarModel};
use plan::{BASE_FILE, base_of, is_adapter, weights_hash};
use tokenizer::Tokenizer;
use train::BaseModelCache;

use super::proven;
use crate::args::MergeArgs;
use crate::failure::{Failure, Result};
use crate::model_card::ModelCard;

pub(crate) fn run(args: &MergeArgs) -> Result<()> {
    if args.to.exists() {
        return Err(Failure::input(
            format!("already there: `{}`", args.to.display()),
            "name a directory that does not exist; nothing is overwritten",
        ));
    }
    let weights = weights_of(args)?;
    let dirs: Vec<PathBuf> = args
        .models
        .iter()
        .map(|model| plan::locate_argument(model))
        .collect::<plan::Result<_>>()?;
    let adapters: Vec<bool> = dirs.iter().map(|dir| is_adapter(dir)).collect();
    match (adapters.iter().all(|is| *is), adapters.iter().any(|is| *is)) {
        (true, _) => adapters_of(args, &dirs, &weights),
        (false, true) => Err(Failure::input(
            "some models are adapters and some have all weights",
            "merge the adapters into their base models first (`temper export --merge`)",
        )),
        (false, false) => match ModelInfo::read(&dirs[0])?.architecture {
            Architecture::CausalLm => whole::<CausalLm>(args, &dirs, &weights),
            Architecture::SequenceClassifier => whole::<ScalarModel>(args, &dirs, &weights),
        },
    }
}

/// One weight a model; equal ones that sum to 1 if none are given.
fn weights_of(args: &MergeArgs) -> Result<Vec<f64>> {
    let n = args.models.len();
    if args.weights.is_empty() {
        return Ok(vec![1.0 / n as f64; n]);
    }
    let hint = "give one number for each model, with a sum that is not 0: `--weights 0.7,0.3`";
    if args.weights.len() != n {
        return Err(Failure::input(format!("{} weights for {n} models", args.weights.len()), hint));
    }
    let is_usable = |weight: f64| (weight as f32).is_finite();
    if let Some(wrong) = args.weights.iter().find(|weight| !is_usable(**weight)) {
        return Err(Failure::input(format!("--weights: not a finite number: `{wrong}`"), hint));
    }
    if args.weights.iter().sum::<f64>() as f32 == 0.0 {
        let weights: Vec<String> = args.weights.iter().map(f64::to_string).collect();
        let message = format!("--weights: the weights sum to 0: `{}`", weights.join(","));
        return Err(Failure::input(message, hint));
    }
    Ok(args.weights.clone())
}

/// The tokenizer of the first model. Weights of other tokens have no sum: the others' tokenizers must give the same tokens to
/// the ids that both have. Adapters without a tokenizer have that of their base model, `base`.
fn common_tokenizer(dirs: &[PathBuf], base: Option<&Path>) -> Result<Tokenizer> {
    let read = |dir: &PathBuf| match (Tokenizer::from_dir_or_file(dir), base) {
        (Err(tokenizer::Error::Missing { .. }), Some(base)) => Tokenizer::from_dir_or_file(base),
        (found, _) => found,
    };
    let mut all = dirs.iter().map(|dir| Ok::<_, Failure>((dir, read(dir)?)));
    let Some((of_first, first)) = all.next().transpose()? else { return Err(no_models()) };
    for other in all {
        let (dir, other) = other?;
        if let Some((id, [wanted, found])) = first.first_difference(&other) {
            return Err(Failure::input(
                format!(
                    "`{}` has another tokenizer than `{}`: id {id} is `{found}` and not `{wanted}`",
                    dir.display(),
                    of_first.display()
                ),
                "merge models that were trained with the same tokenizer",
            ));
        }
    }
    Ok(first)
}

/// The weighted sum of all weights, added up in f64.
fn whole<M: ProvenModel>(args: &MergeArgs, dirs: &[PathBuf], weights: &[f64]) -> Result<()> {
    let tokenizer = common_tokenizer(dirs, None)?;
    let device = kernels::device("cpu")?;
    let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut first: Option<M> = None;
    for (dir, weight) in dirs.iter().zip(weights) {
        let model = lora::dequantised(M::load(dir, &device)?);
        let config = SavedModel::config;
        if first.as_ref().is_some_and(|first| config(first) != config(&model)) {
            return Err(Failure::input(
                format!("`{}` has another shape than `{}`", dir.display(), dirs[0].display()),
                "merge models with equal config.json",
            ));
        }
        model::visit_tensors(&model, |name, _, values| {
            let sum = sums.entry(name.to_owned()).or_insert_with(|| vec![0.0; values.len()]);
            sum.iter_mut().zip(values).for_each(|(sum, x)| *sum += weight * f64::from(*x));
            Ok::<(), Failure>(())
        })?;
        first = first.or(Some(model));
    }
    let Some(model) = first else { return Err(no_models()) };
    let narrow = |(name, sum): (String, Vec<f64>)| (name, sum.iter().map(|x| *x as f32).collect());
    let model = model::replace_parameters(model, &mut sums.into_iter().map(narrow).collect());
    let generation = export::sampling_defaults(&dirs[0])?;
    let options = Options { generation, ..Options::new(dtype(args)?) };
    let card = ModelCard::of_merge(dirs, weights, M::ARCHITECTURE);
    proven::write_directory(model, &tokenizer, &options, &card, &args.to)
}

/// The weighted sum of the updates of several adapters, as one adapter whose rank is the sum of theirs.
fn adapters_of(args: &MergeArgs, dirs: &[PathBuf], weights: &[f64]) -> Result<()> {
    let base = common_base(args, dirs)?;
    let tokenizer = common_tokenizer(dirs, Some(&base))?;
    let device = kernels::device("cpu")?;
    let mut bases = BaseModelCache::new(&device);
    let read = |dir: &PathBuf| Ok(Peft::read(dir)?);
    let configs: Vec<Peft> = dirs.iter().map(read).collect::<Result<_>>()?;
    if configs.iter().any(|peft| peft.saves_head) {
        return Err(Failure::input(
            "adapters with a score head have no sum",
            "merge each into its base model first (`temper export --merge`)",
        ));
    }
    let mut models = Vec::new();
    for dir in dirs {
        models.push(bases.open_on_base::<CausalLm>(&base, dir)?);
    }
    let configs: Vec<_> = configs.into_iter().map(|peft| peft.lora).collect();
    let (model, config) = lora::weighted_sum(models, &configs, weights)?;
    let named = base.display().to_string();
    let dtype = dtype(args)?;
    // An adapter whose tokenizer is that of its base model needs no copy of it.
    let is_own = dirs.first().is_some_and(|dir| Tokenizer::from_dir_or_file(dir).is_ok());
    let tokenizer_files = if is_own { tokenizer.files()? } else { Vec::new() };
    let source = SourceAnswers::of(&model, &tokenizer, None)?;
    let card = ModelCard::of_merge(dirs, weights, Architecture::CausalLm).of_adapter();
    proven::write_adapter::<CausalLm>(source, &base, (dtype, false), &card, &args.to, |out| {
        lora::export(&model, &config, Some(&named), dtype, out)?;
        let hash = weights_hash(&base)?;
        let record = plan::BaseFile::new(out.final_dir(), &base, &hash, recipe::BaseDtype::F32);
        let text = serde_json::to_string_pretty(&record).unwrap_or_default() + "\n";
        out.write(BASE_FILE, text)?;
        for (name, bytes) in tokenizer_files {
            out.write(&name, bytes)?;
        }
        Ok(())
    })
}

/// The base model that all adapters record, or that `--base` names.
fn common_base(args: &MergeArgs, dirs: &[PathBuf]) -> Result<PathBuf> {
    if let Some(base) = &args.base {
        return Ok(plan::locate_argument(base)?);
    }
    let mut found: Option<PathBuf> = None;
    for dir in dirs {
        let base = base_of(dir)?;
        let same = |a: &Path, b: &Path| Ok::<bool, Failure>(weights_hash(a)? == weights_hash(b)?);
        if let (Some(found), Some(base)) = (&found, &base)
            && !same(found, base)?
        {
            return Err(Failure::input(
                format!("`{}` belongs to another base model", dir.display()),
                "merge adapters that were trained on the same weights",
            ));
        }
        found = found.or(base);
    }
    found.ok_or_else(no_models)
}

fn dtype(args: &MergeArgs) -> Result<Dtype> {
    let unknown =
        || Failure::input(format!("unknown dtype: `{}`", args.dtype), "one of f32, bf16, f16");
    Dtype::from_name(&args.dtype).ok_or_else(unknown)
}

fn no_models() -> Failure {
    Failure::input("no models to merge", "name at least two")
}
