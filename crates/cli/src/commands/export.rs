//! `temper export`: writes a model as a Hugging Face directory or a GGUF file, or its adapter as a PEFT directory.

use std::path::{Path, PathBuf};

use arch::{Architecture, Dtype, LoraInit, ModelInfo, Peft};
use evaluate::proof::{ProvenModel, SourceAnswers};
use export::Options;
use gguf::FileType;
use model::{CausalLm, ScalarModel};
use plan::{base_of, is_adapter};
use tokenizer::Tokenizer;

use super::{merge_cost, open_model, proven};
use crate::args::ExportArgs;
use crate::failure::{Failure, Result};
use crate::model_card::ModelCard;
use crate::render::progress::warn;

pub(crate) fn run(args: &ExportArgs) -> Result<()> {
    fsio::finish_file(&args.to);
    if args.to.exists() {
        return Err(Failure::input(
            format!("`{}` already exists", args.to.display()),
            "choose a new directory; export overwrites nothing",
        ));
    }
    let is_gguf = args.to.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("gguf"));
    let dir = plan::locate_argument(&args.model)?;
    if let Some(name) = &args.gguf {
        return run_gguf(args, &dir, name, is_gguf);
    }
    if is_gguf {
        return Err(Failure::input(
            format!("`{}` is the name of a GGUF file, and --gguf is missing", args.to.display()),
            format!("add --gguf with one of {}", FileType::ALL.map(FileType::name).join(", ")),
        ));
    }
    let dtype = Dtype::from_name(&args.dtype).ok_or_else(|| {
        Failure::input(format!("unknown dtype: `{}`", args.dtype), "use f32, bf16 or f16")
    })?;
    let whole = plan::recorded_base(&dir).ok().flatten().or_else(|| args.base.clone());
    let generation = export::sampling_defaults(whole.as_deref().unwrap_or(&dir))?;
    let options = Options { dtype, shard_bytes: args.max_shard_size, generation };
    match architecture(&dir, args.base.as_deref())? {
        Architecture::CausalLm => write::<CausalLm>(args, &dir, options),
        Architecture::SequenceClassifier => write::<ScalarModel>(args, &dir, options),
    }
}

/// Writes a GGUF file of whole weights; an adapter is merged into its base model.
fn run_gguf(args: &ExportArgs, dir: &Path, file_type: &str, is_gguf: bool) -> Result<()> {
    let known = FileType::ALL.map(FileType::name).join(", ");
    let file_type = FileType::from_name(file_type).ok_or_else(|| {
        Failure::input(format!("unknown type of GGUF file: `{file_type}`"), format!("use {known}"))
    })?;
    if !is_gguf {
        return Err(Failure::input(
            format!("--gguf writes a file, and `{}` does not end in .gguf", args.to.display()),
            "name a file, as in --to model.gguf",
        ));
    }
    if architecture(dir, args.base.as_deref())? == Architecture::SequenceClassifier {
        return Err(Failure::input(
            format!("`{}` is a sequence classifier; GGUF files are language models", dir.display()),
            "remove --gguf to export a Hugging Face directory",
        ));
    }
    let (model, tokenizer) = open_model::<CausalLm>(&args.model, args.base.as_deref(), "cpu")?;
    let model = if is_adapter(dir) { lora::merge(model)?.0 } else { lora::dequantised(model) };
    proven::write_gguf(model, &tokenizer, file_type, &args.to)
}

/// Architecture of a model. An adapter may have a head that its base model lacks.
fn architecture(dir: &Path, base: Option<&Path>) -> Result<Architecture> {
    if !is_adapter(dir) {
        return Ok(ModelInfo::read(dir)?.architecture);
    }
    if Peft::read(dir)?.saves_head {
        return Ok(Architecture::SequenceClassifier);
    }
    let base: Option<PathBuf> = match base {
        Some(base) => Some(plan::locate_argument(base)?),
        None => base_of(dir)?,
    };
    Ok(ModelInfo::read(base.as_deref().unwrap_or(dir))?.architecture)
}

fn write<M: ProvenModel>(args: &ExportArgs, dir: &Path, options: Options) -> Result<()> {
    let has_adapter = is_adapter(dir);
    if (args.adapter || args.merge) && !has_adapter {
        return Err(Failure::input(
            format!("`{}` has no adapter: all its weights were trained", dir.display()),
            "remove --adapter or --merge",
        ));
    }
    let (mut model, tokenizer) = open_model::<M>(&args.model, args.base.as_deref(), "cpu")?;
    let is_packed = lora::is_packed(&mut model);
    if args.adapter {
        return write_adapter(args, dir, options.dtype, (model, is_packed), &tokenizer);
    }
    let model = if has_adapter { lora::merge(model)?.0 } else { lora::dequantised(model) };
    let card = ModelCard::of(dir, args.base.as_deref(), M::ARCHITECTURE)?;
    proven::write_directory(model, &tokenizer, &options, &card, &args.to)?;
    if has_adapter && is_packed && M::ARCHITECTURE == Architecture::CausalLm {
        note_cost(args)?;
    }
    Ok(())
}

/// Writes the adapter alone. The model is given with whether its base weights are packed.
fn write_adapter<M: ProvenModel>(
    args: &ExportArgs,
    dir: &Path,
    dtype: Dtype,
    (model, is_packed): (M, bool),
    tokenizer: &Tokenizer,
) -> Result<()> {
    let peft = Peft::read(dir)?;
    let base = match &args.base {
        Some(base) => Some(plan::locate_argument(base)?),
        None => base_of(dir)?,
    };
    let Some(base) = base else { return Err(plan::Error::NoBase { dir: dir.to_owned() }.into()) };
    let source = SourceAnswers::of(&model, tokenizer, None)?;
    // Factors that were taken out of the weights are converted, so that the adapter fits the base model as it is.
    let (model, config) = if peft.lora.init == LoraInit::Default {
        (model, peft.lora)
    } else {
        let mut bases = train::BaseModelCache::new(&kernels::device("cpu")?);
        lora::as_plain_lora(model, bases.open_base::<M>(&base)?, &peft.lora)?
    };
    if config.init != LoraInit::Default {
        warn(
            "`init` changed the base weights, and DoRA has no conversion: a reader decomposes them again",
        );
    }
    let named = base.display().to_string();
    let card = ModelCard::of(dir, Some(&base), M::ARCHITECTURE)?.of_adapter();
    proven::write_adapter::<M>(source, &base, (dtype, is_packed), &card, &args.to, |out| {
        lora::export(&model, &config, Some(&named), dtype, out)?;
        for (name, bytes) in tokenizer.files()? {
            out.write(&name, bytes)?;
        }
        Ok(())
    })
}

/// Prints how far merging into unpacked weights and rounding them moved the model.
fn note_cost(args: &ExportArgs) -> Result<()> {
    if let Some(kl) = merge_cost::of_export(args, &args.to)? {
        let n = merge_cost::PROMPTS.len();
        warn(&format!(
            "the base weights were unpacked once for merging: KL divergence from the trained model on {n} prompts is \
             {kl:.1e} nats per token"
        ));
    }
    Ok(())
}
