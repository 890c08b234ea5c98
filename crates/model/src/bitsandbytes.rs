//! Weights that bitsandbytes packed into 4 or 8 bits, as transformers saves them.
//!
//! A 4-bit weight is one tensor of codes with its scales, tables and a description in JSON beside it; an 8-bit one is a
//! matrix of signed bytes with one scale a row.

use std::collections::BTreeSet;
use std::sync::Arc;

use kernels::{BlockScales, CodeTable, NestedScales, PackedLayout};
use serde::Deserialize;
use tensor_file::TensorDir;

use crate::{Error, Result};

/// Far above any block size in use.
const MAX_BLOCK: usize = 1 << 20;
/// A description is a few hundred bytes.
const MAX_STATE_BYTES: u64 = 1 << 16;

/// `quant_state` of a 4-bit weight.
#[derive(Debug, Deserialize)]
struct QuantState {
    blocksize: usize,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f32>,
}

/// The names of the tensors that belong to a packed weight; empty if the weight is not packed.
pub(crate) fn companions(names: &BTreeSet<&str>, weight: &str) -> Vec<String> {
    let four_bit = format!("{weight}.quant_state.bitsandbytes__");
    let prefix = format!("{weight}.");
    if names.iter().any(|name| name.starts_with(&four_bit)) {
        return names.iter().filter(|n| n.starts_with(&prefix)).map(|n| (*n).to_owned()).collect();
    }
    let module = weight.strip_suffix(".weight").unwrap_or(weight);
    let scales = format!("{module}.SCB");
    if names.contains(scales.as_str()) {
        let format = format!("{module}.weight_format");
        return [scales, format].into_iter().filter(|n| names.contains(n.as_str())).collect();
    }
    Vec::new()
}

/// The codes of a packed weight of shape `[out, in]`, and how they are read.
pub(crate) fn read(
    files: &TensorDir,
    weight: &str,
    companions: &[String],
    dims: [usize; 2],
) -> Result<(Vec<u8>, PackedLayout)> {
    let state = companions.iter().find(|name| name.contains(".quant_state."));
    let layout = match state {
        Some(state) => four_bit(files, weight, state, companions, dims)?,
        None => int8(files, weight, companions, dims)?,
    };
    let view = files.tensor(weight)?;
    if view.n_bytes() != layout.n_code_bytes() as u64 {
        let reason = format!("has {} bytes, not {}", view.n_bytes(), layout.n_code_bytes());
        return Err(wrong(files, weight, &reason));
    }
    let mut codes = vec![0; layout.n_code_bytes()];
    view.read_bytes(0, &mut codes)?;
    Ok((codes, layout))
}

fn four_bit(
    files: &TensorDir,
    weight: &str,
    state_name: &str,
    companions: &[String],
    dims: [usize; 2],
) -> Result<PackedLayout> {
    let view = files.tensor(state_name)?;
    if view.n_bytes() > MAX_STATE_BYTES {
        return Err(wrong(files, state_name, "is too long for a description"));
    }
    let mut json = vec![0; view.n_bytes() as usize];
    view.read_bytes(0, &mut json)?;
    let state: QuantState = serde_json::from_slice(&json)
        .map_err(|error| wrong(files, state_name, &format!("is not a description: {error}")))?;
    if state.shape != dims {
        let reason = format!("describes a weight {:?}, not {dims:?}", state.shape);
        return Err(wrong(files, state_name, &reason));
    }
    let in_range = |block: usize| (1..=MAX_BLOCK).contains(&block);
    if !in_range(state.blocksize) || !state.nested_blocksize.is_none_or(in_range) {
        return Err(wrong(files, state_name, "has a block size out of range"));
    }
    let named = |last: &str| format!("{weight}.{last}");
    let floats = |last: &str, n: usize| floats(files, &named(last), n);
    let table: [f32; 16] = floats("quant_map", 16)?.try_into().unwrap_or([0.0; 16]);
    let n_blocks = (dims[0] * dims[1]).div_ceil(state.blocksize);
    let is_nested = companions.contains(&named("nested_absmax"));
    let scales = match (is_nested, state.nested_blocksize, state.nested_offset) {
        (true, Some(block), Some(offset)) => {
            let absmax = named("absmax");
            let view = files.tensor(&absmax)?.with_shape(&[n_blocks])?;
            let codes = view.values::<u8>()?;
            if !offset.is_finite() {
                return Err(wrong(files, state_name, "has an offset that is not finite"));
            }
            let scales = floats("nested_absmax", n_blocks.div_ceil(block))?;
            let table = floats("nested_quant_map", 256)?;
            BlockScales::Nested(Arc::new(NestedScales { codes, scales, block, offset, table }))
        }
        (true, _, _) => {
            return Err(wrong(files, state_name, "does not describe its nested scales"));
        }
        (false, _, _) => BlockScales::Plain(floats("absmax", n_blocks)?.into()),
    };
    let (table, block) = (CodeTable::FourBit(table), state.blocksize);
    Ok(PackedLayout { dims, table, block, scales })
}

fn int8(
    files: &TensorDir,
    weight: &str,
    companions: &[String],
    dims: [usize; 2],
) -> Result<PackedLayout> {
    files.tensor(weight)?.with_shape(&dims)?;
    for name in companions {
        if name.ends_with(".weight_format") {
            let mut format = [0];
            files.tensor(name)?.read_bytes(0, &mut format)?;
            if format != [0] {
                return Err(wrong(files, name, "is not the row format"));
            }
        }
    }
    let module = weight.strip_suffix(".weight").unwrap_or(weight);
    let scales = BlockScales::Plain(floats(files, &format!("{module}.SCB"), dims[0])?.into());
    Ok(PackedLayout { dims, table: CodeTable::Int8, block: dims[1].max(1), scales })
}

fn floats(files: &TensorDir, name: &str, n: usize) -> Result<Vec<f32>> {
    Ok(files.tensor(name)?.with_shape(&[n])?.weights()?)
}

fn wrong(files: &TensorDir, name: &str, reason: &str) -> Error {
    let path = files.tensor(name).map_or_else(|_| files.path(), |view| view.path());
    Error::Packing { path: path.to_owned(), name: name.to_owned(), reason: reason.to_owned() }
}
