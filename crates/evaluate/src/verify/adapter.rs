//! Replays a PEFT directory on its base model: logits with the adapter, merged weights, and logits after merging; or the
//! starting values of PiSSA.
//!
//! References do not name their base model. It is a directory `base` or `base-…` beside them; of several, the one on which
//! the logits are nearest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use arch::AdapterError;
use burn::tensor::Device;
use lora::{Adapted, Peft};
use model::{CausalLm, load_causal_lm};
use nn::TokenBatch;

use super::report::{Quantity, Tolerance};
use super::vectors::Vectors;
use crate::error::{Error, Result};
use crate::host_values::host_values;

/// Logits with factors beside their weights: where those are scaled by α / √r, PEFT's own logits in f32 differ by up to 1.5e-5 from
/// those in f64.
const ADAPTED: Tolerance = Tolerance { absolute: 2e-5, relative: 3e-6 };
const MERGED: Tolerance = Tolerance { absolute: 1e-6, relative: 1e-6 };
/// Starting values: the reference decomposes in f32, and where two singular values are near each other its vectors are off
/// by 5e-5 from those of a decomposition in f64, which ours are.
const FACTORS: Tolerance = Tolerance::absolute(1e-4);
/// Logits with the reference's factors on a residual of ours; see [`FACTORS`].
const LOADED: Tolerance = Tolerance::absolute(1e-3);

/// An adapter with logits and merged weights.
pub(super) fn replay(dir: &Path, device: &Device) -> Result<Vec<Quantity>> {
    on_best_base(dir, &|base| replay_on(base, dir, device))
}

/// An adapter whose starting values are a decomposition of the weights.
pub(super) fn replay_init(dir: &Path, device: &Device) -> Result<Vec<Quantity>> {
    on_best_base(dir, &|base| replay_init_on(base, dir, device))
}

/// A directory `refuse-…`, whose adapter must be refused with the name of the key that is not supported.
pub(super) fn refusal(dir: &Path) -> Quantity {
    let mut refused = Quantity::new("refused");
    let (is_named, at) = match Peft::read(dir) {
        Err(error @ AdapterError::Unsupported { .. }) => (true, error.to_string()),
        Err(error) => (false, error.to_string()),
        Ok(_) => (false, "read without an error".to_owned()),
    };
    refused.add_difference(Some(&at), f64::from(u8::from(!is_named)), 0.0, 1);
    refused
}

/// The first replay that passes, else the one whose logits are nearest, else the first error.
fn on_best_base(
    dir: &Path,
    replay: &dyn Fn(&Path) -> Result<Vec<Quantity>>,
) -> Result<Vec<Quantity>> {
    let mut best: Option<Vec<Quantity>> = None;
    let mut first_error = None;
    let logits = |quantities: &[Quantity]| {
        quantities.first().map_or(f64::INFINITY, |logits| logits.largest_difference)
    };
    for base in bases(dir)? {
        match replay(&base) {
            Ok(quantities) if quantities.iter().all(Quantity::passed) => return Ok(quantities),
            Ok(quantities) => {
                if best.as_ref().is_none_or(|best| logits(&quantities) < logits(best)) {
                    best = Some(quantities);
                }
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    let no_base = || Error::BadVectors {
        path: dir.to_owned(),
        reason: "no directory `base` or `base-…` beside it".to_owned(),
    };
    best.ok_or_else(|| first_error.unwrap_or_else(no_base))
}

fn bases(dir: &Path) -> Result<Vec<PathBuf>> {
    let parent = dir.parent().unwrap_or(dir);
    let unreadable = |source: std::io::Error| Error::BadVectors {
        path: parent.to_owned(),
        reason: format!("cannot be listed: {source}"),
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(parent).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let is_base = name.to_str().is_some_and(|name| name == "base" || name.starts_with("base-"));
        if is_base && entry.path().join("config.json").is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn replay_on(base_dir: &Path, dir: &Path, device: &Device) -> Result<Vec<Quantity>> {
    let base = load_causal_lm(base_dir, device)?;
    let (adapted, _) = lora::load(base.clone(), dir)?;
    let io = Vectors::open(&dir.join("io.safetensors"))?;
    let with_adapter = compare_logits("logits", &adapted.model, &io, ADAPTED, device)?;
    let (model, _) = lora::merge(adapted.model)?;
    let mut quantities = vec![with_adapter];
    let reference = dir.join("merged.safetensors");
    // Without the file, the reference has no weights that compute the adapter's function.
    if reference.exists() {
        quantities.push(compare_merged(&model, &base, &Vectors::open(&reference)?)?);
    }
    quantities.push(compare_logits("merged_logits", &model, &io, Tolerance::LOGITS, device)?);
    Ok(quantities)
}

fn compare_logits(
    name: &str,
    model: &CausalLm,
    io: &Vectors,
    tolerance: Tolerance,
    device: &Device,
) -> Result<Quantity> {
    let ids = io.ids_for(model.config(), "input_ids")?;
    let rows = ids.shape.first().copied().unwrap_or(0);
    let tokens = TokenBatch::of_rows(&ids.values, rows, device);
    let mut shape = ids.shape.clone();
    shape.push(model.config().vocab_size());
    let mut quantity = Quantity::new(name);
    let got = host_values(&model.logits(model.forward(&tokens).hidden_btd));
    quantity.add("all", &got, &io.floats_of("logits", &shape)?, tolerance);
    Ok(quantity)
}

/// Compares merged weights with a file of all of them, or of those that differ from the base model's.
fn compare_merged(model: &CausalLm, base: &CausalLm, reference: &Vectors) -> Result<Quantity> {
    let of_base = values_of(base)?;
    let mut left: BTreeSet<String> = reference.names().into_iter().collect();
    let mut merged = Quantity::new("merged_weights");
    model::visit_tensors(model, |name, shape, values| {
        if left.remove(name) {
            merged.add(name, values, &reference.floats_of(name, shape)?, MERGED);
        } else {
            let unchanged = of_base.get(name).map(Vec::as_slice).unwrap_or_default();
            merged.add(name, values, unchanged, Tolerance::absolute(0.0));
        }
        Ok::<(), Error>(())
    })?;
    if let Some(name) = left.first() {
        merged.add_difference(Some(name), f64::INFINITY, 0.0, 1);
    }
    Ok(merged)
}

fn values_of(model: &CausalLm) -> Result<BTreeMap<String, Vec<f32>>> {
    let mut found = BTreeMap::new();
    model::visit_tensors(model, |name, _, values| {
        found.insert(name.to_owned(), values.to_vec());
        Ok::<(), Error>(())
    })?;
    Ok(found)
}

/// Starting values: signs of singular vectors are free, so magnitudes and the residual are compared. The logits are those of
/// the base model, with new factors and with the reference's.
fn replay_init_on(base_dir: &Path, dir: &Path, device: &Device) -> Result<Vec<Quantity>> {
    let base = load_causal_lm(base_dir, device)?;
    let io = Vectors::open(&dir.join("init.safetensors"))?;
    let config = Peft::read(dir).map_err(lora::Error::from)?.lora;
    let Adapted { model, layers, .. } = lora::attach(base.clone(), &config, 0)?;
    let mut quantities = vec![
        compare_logits("logits", &model, &io, Tolerance::LOGITS, device)?,
        compare_logits("loaded_logits", &lora::load(base, dir)?.0.model, &io, LOADED, device)?,
    ];
    let ours = values_of(&model)?;
    let (mut factors, mut residuals) = (Quantity::new("factors"), Quantity::new("residuals"));
    for layer in layers {
        let magnitudes = |values: &[f32]| values.iter().map(|x| x.abs()).collect::<Vec<_>>();
        let value = |name: String| ours.get(&name).map(Vec::as_slice).unwrap_or_default();
        for factor in ["lora_A", "lora_B"] {
            let name = format!("{layer}.{factor}");
            let got = magnitudes(value(format!("{name}.weight")));
            factors.add(&name, &got, &magnitudes(&io.floats(&name)?.values), FACTORS);
        }
        let name = format!("{layer}.residual");
        let got = value(format!("{layer}.weight"));
        residuals.add(&name, got, &io.floats(&name)?.values, FACTORS);
    }
    quantities.extend([factors, residuals]);
    Ok(quantities)
}
