//! The weights file of a checkpoint. `model` reads it.

use std::io::Write;

use fsio::DirWriter;

use crate::Result;

/// The file in a checkpoint.
pub const MODEL_FILE: &str = "model.safetensors";

/// Writes the weights into a checkpoint; `write` is the model's own `write_safetensors`.
pub fn save_model(
    dir: &mut DirWriter,
    write: impl FnOnce(&mut dyn Write) -> model::Result<()>,
) -> Result<()> {
    let mut file = dir.create(MODEL_FILE)?;
    write(&mut file)?;
    file.finish()?;
    Ok(())
}
