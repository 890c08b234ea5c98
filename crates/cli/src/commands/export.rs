//! `temper export`: a model as a Hugging Face directory.

use arch::{Architecture, Description, Dtype};

use model::{CausalLm, SavedModel, ScalarHead};

use super::{open_model, print};
use crate::args::ExportArgs;
use crate::failure::{Failure, Result};
use crate::render::table;

pub(crate) fn run(args: &ExportArgs) -> Result<()> {
    if args.to.exists() {
        return Err(Failure::input(
            format!("already there: `{}`", args.to.display()),
            "name a directory that does not exist; nothing is overwritten",
        ));
    }
    let dtype = Dtype::from_name(&args.dtype).ok_or_else(|| {
        Failure::input(format!("unknown dtype: `{}`", args.dtype), "one of f32, bf16, f16")
    })?;
    let dir = plan::locate_model(&args.model)?;
    let manifest = match Description::read(&dir)?.architecture {
        Architecture::CausalLm => write::<CausalLm>(args, dtype)?,
        Architecture::SequenceClassifier => write::<ScalarHead>(args, dtype)?,
    };
    let size = manifest.files.values().map(|file| file.bytes).sum();
    print(&format!(
        "{}: {} files, {}\n",
        args.to.display(),
        manifest.files.len(),
        table::bytes(size)
    ))
}

fn write<M: SavedModel>(args: &ExportArgs, dtype: Dtype) -> Result<fsio::Manifest> {
    let (model, tokenizer) = open_model::<M>(&args.model, "cpu")?;
    Ok(export::hugging_face(&model, &tokenizer, dtype, &args.to)?)
}
