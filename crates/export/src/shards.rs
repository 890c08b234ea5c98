//! Weights as one safetensors file, or as several with an index where they are large.
//!
//! Which tensor goes where is a function of the table of parameters alone. It deliberately holds
//! one tensor at a time.

use std::collections::{BTreeMap, BTreeSet};

use arch::{Dtype, ParamSpec};
use fsio::DirWriter;
use model::{SafetensorsWriter, SavedModel, visit_tensors};
use serde_json::json;

use crate::{Options, Result};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Writes every weight; parameters that the model was trained without are zeros in the file.
pub(crate) fn write<M: SavedModel>(dir: &mut DirWriter, model: &M, options: Options) -> Result<()> {
    let specs = model.file_parameters();
    let shards = split(&specs, options);
    if shards.len() <= 1 {
        let mut file = dir.create(SINGLE)?;
        model.write_safetensors(&mut file, options.dtype)?;
        file.finish()?;
        return Ok(());
    }
    let zeros = model.config().zero_parameters().into_iter().map(|spec| spec.name).collect();
    let mut weight_map = BTreeMap::new();
    for (shard_idx, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", shard_idx + 1, shards.len());
        let mut file = dir.create(&name)?;
        write_shard(&mut file, model, shard, &zeros, options.dtype)?;
        file.finish()?;
        weight_map.extend(shard.iter().map(|spec| (spec.name.as_str(), name.clone())));
    }
    let total_parameters: u64 = specs.iter().map(ParamSpec::n_elements).sum();
    let total_size = total_parameters * options.dtype.n_bytes();
    let index = json!({
        "metadata": { "total_parameters": total_parameters, "total_size": total_size },
        "weight_map": weight_map,
    });
    dir.write(INDEX, format!("{index:#}\n"))?;
    Ok(())
}

/// Runs of parameters of at most `shard_bytes`; a larger parameter stands alone.
fn split(specs: &[ParamSpec], options: Options) -> Vec<&[ParamSpec]> {
    let mut shards = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (idx, spec) in specs.iter().enumerate() {
        let more = spec.n_elements() * options.dtype.n_bytes();
        if idx > start && bytes + more > options.shard_bytes {
            shards.push(&specs[start..idx]);
            (start, bytes) = (idx, 0);
        }
        bytes += more;
    }
    shards.push(&specs[start..]);
    shards
}

fn write_shard<M: SavedModel>(
    file: &mut fsio::HashingFile,
    model: &M,
    shard: &[ParamSpec],
    zeros: &BTreeSet<String>,
    dtype: Dtype,
) -> Result<()> {
    let table = shard.iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect();
    let mut writer = SafetensorsWriter::begin(file, table, dtype)?;
    let mut pending = shard;
    visit_tensors(model, |name, _, values| {
        // Both lists are in module order, so what stands before `name` is what the model lacks.
        let Some(n_zeros) = pending.iter().position(|spec| spec.name == name) else {
            return Ok(());
        };
        let (lacking, rest) = pending.split_at(n_zeros);
        write_zeros(&mut writer, lacking, zeros)?;
        pending = rest.get(1..).unwrap_or_default();
        writer.tensor(name, values)
    })?;
    write_zeros(&mut writer, pending, zeros)?;
    Ok(writer.finish()?)
}

fn write_zeros(
    writer: &mut SafetensorsWriter,
    lacking: &[ParamSpec],
    zeros: &BTreeSet<String>,
) -> model::Result<()> {
    for spec in lacking {
        if !zeros.contains(&spec.name) {
            return Err(model::Error::OutOfOrder { name: spec.name.clone() });
        }
        writer.tensor(&spec.name, &vec![0.0; spec.n_elements() as usize])?;
    }
    Ok(())
}
