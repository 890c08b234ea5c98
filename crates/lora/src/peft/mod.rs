//! PEFT directories: reading and writing adapter_config.json and adapter_model.safetensors, strictly.
//!
//! Formats that can contain code are not read, and paths in files are not followed.

mod settings;
mod weights;

use std::path::Path;

use arch::Dtype;
use fsio::DirWriter;
use model::Adaptable;

use crate::attach::{attach_from, layout_of, untied};
use crate::{Adapted, LoraConfig, Result};

pub use arch::{ADAPTER_CONFIG, Peft};

use self::weights::AdapterFile;
pub use self::weights::{PREFIX, peft_name, write_weights};

/// File name of an adapter's weights.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// Attaches the adapter of a PEFT directory to its base model and freezes the rest.
///
/// The file must have exactly the tensors of its settings, in the right shape and finite; names and shapes are checked
/// before any data is read.
pub fn load<M: Adaptable>(model: M, dir: &Path) -> Result<(Adapted<M>, Peft)> {
    let peft = Peft::read(dir)?;
    settings::check_head(&peft, &model, dir)?;
    let layout = layout_of(&model, &peft.lora).map_err(|error| error.in_config_of(dir))?;
    let mut file = AdapterFile::open(dir, &model, &peft.lora, &layout, peft.saves_head)?;
    let mut model = untied(model, &layout)?;
    file.replace_base_layers(&mut model, &layout)?;
    file.read_base(&mut model)?;
    Ok((attach_from(model, &peft.lora, &layout, &mut file)?, peft))
}

/// Writes a model's adapter as a PEFT directory for the base model `base`, with the head if the base model has none.
///
/// PEFT's default is f32; bf16 and f16 are rounded once.
pub fn export<M: Adaptable>(
    model: &M,
    config: &LoraConfig,
    base: Option<&str>,
    dtype: Dtype,
    dir: &mut DirWriter,
) -> Result<()> {
    let settings = settings::to_json(model, config, base)?;
    dir.write(ADAPTER_CONFIG, settings)?;
    let mut file = dir.create(ADAPTER_WEIGHTS)?;
    write_weights(model, config, dtype, &mut file)?;
    file.finish()?;
    Ok(())
}
