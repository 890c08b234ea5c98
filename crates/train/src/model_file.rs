//! The model's part of a checkpoint: written as Hugging Face names it, compared bit by bit on demand.
//!
//! It deliberately doesn't load models: `model` does, strictly.

use std::io::Write;
use std::path::Path;

use burn::module::Module;
use fsio::DirWriter;

use crate::parameters::{ParameterNames, for_each_value};
use crate::tensor_file::TensorFile;
use crate::{Error, Kept, Result};

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

/// Compares a folder's f32 weights with the model in memory, bit by bit; of an adapter's, what is trained.
pub fn compare_model<M: Module>(
    dir: &Path,
    kept: &Kept,
    model: &M,
    names: &ParameterNames,
) -> Result<()> {
    let (file_name, prefix) = kept.file();
    let path = dir.join(file_name);
    let file = TensorFile::open(&path)?;
    let mut names = names.iter();
    let mut differing = None;
    let mut failed = None;
    for_each_value(model, |now, shape, trained| {
        let Some(name) = names.next() else { return };
        if *kept != Kept::Whole && !trained {
            return;
        }
        match file.tensor(&format!("{prefix}{name}")) {
            Ok(Some((saved_shape, saved))) if saved_shape == shape && bits_equal(now, &saved) => {}
            Ok(_) => {
                differing.get_or_insert_with(|| name.to_owned());
            }
            Err(e) => failed = Some(e),
        }
    });
    match (failed, differing) {
        (Some(error), _) => Err(error),
        (None, Some(parameter)) => Err(Error::DrySave { path, parameter }),
        (None, None) => Ok(()),
    }
}

fn bits_equal(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}
