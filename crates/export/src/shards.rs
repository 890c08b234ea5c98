//! Weights as one safetensors file, or as shards with an index if they are large.
//!
//! The list of parameters alone determines which shard a tensor is in. One tensor at a time is in memory.

use std::collections::{BTreeMap, BTreeSet};

use arch::{Dtype, ParamSpec};
use fsio::DirWriter;
use model::{SavedModel, visit_tensors};
use tensor_file::{
    INDEX_FILE, SafetensorsWriter, WEIGHTS_FILE, index_json, shard_name, split_by_bytes,
};

use crate::{Options, Result};

/// Writes every weight; parameters that the model is trained without are zeros in the file.
pub(crate) fn write<M: SavedModel>(
    dir: &mut DirWriter,
    model: &M,
    options: &Options,
) -> Result<()> {
    let specs = model.file_parameters();
    let element_bytes = options.dtype.n_bytes();
    let bytes: Vec<u64> = specs.iter().map(|spec| spec.n_elements() * element_bytes).collect();
    let shards = split_by_bytes(&bytes, options.shard_bytes);
    if shards.len() <= 1 {
        let mut file = dir.create(WEIGHTS_FILE)?;
        model.write_safetensors(&mut file, options.dtype)?;
        file.finish()?;
        return Ok(());
    }
    let zeros = model.config().zero_parameters().into_iter().map(|spec| spec.name).collect();
    let mut weight_map = BTreeMap::new();
    for (shard_idx, range) in shards.iter().enumerate() {
        let name = shard_name(shard_idx, shards.len());
        let shard = specs.get(range.clone()).unwrap_or_default();
        let mut file = dir.create(&name)?;
        write_shard(&mut file, model, shard, &zeros, options.dtype)?;
        file.finish()?;
        weight_map.extend(shard.iter().map(|spec| (spec.name.as_str(), name.clone())));
    }
    let total_parameters = specs.iter().map(ParamSpec::n_elements).sum();
    dir.write(INDEX_FILE, index_json(&weight_map, total_parameters, bytes.iter().sum()))?;
    Ok(())
}

fn write_shard<M: SavedModel>(
    file: &mut fsio::HashingFile,
    model: &M,
    shard: &[ParamSpec],
    zeros: &BTreeSet<String>,
    dtype: Dtype,
) -> Result<()> {
    let weights = shard.iter().map(|spec| (spec.name.clone(), spec.shape.clone()));
    let mut writer = SafetensorsWriter::begin_weights(file, weights, dtype)?;
    let mut pending = shard;
    visit_tensors(model, |name, _, values| {
        // Both lists are in module order, so the model lacks the parameters before `name`.
        let Some(n_zeros) = pending.iter().position(|spec| spec.name == name) else {
            return Ok(());
        };
        let (lacking, rest) = pending.split_at(n_zeros);
        write_zeros(&mut writer, lacking, zeros)?;
        pending = rest.get(1..).unwrap_or_default();
        writer.weights(name, values)
    })?;
    write_zeros(&mut writer, pending, zeros)?;
    Ok(writer.finish()?)
}

fn write_zeros(
    writer: &mut SafetensorsWriter,
    lacking: &[ParamSpec],
    zeros: &BTreeSet<String>,
) -> tensor_file::Result<()> {
    for spec in lacking {
        if !zeros.contains(&spec.name) {
            return Err(tensor_file::Error::OutOfOrder { name: spec.name.clone() });
        }
        writer.weights(&spec.name, &vec![0.0; spec.n_elements() as usize])?;
    }
    Ok(())
}
