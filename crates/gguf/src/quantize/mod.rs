//! Conversion of f32 to stored blocks. Codes and scales are found as in ggml's reference implementation without an
//! importance matrix, so the bytes are equal to those of `llama-quantize`.

mod k_quants;
mod search;
mod small_blocks;

use half::{bf16, f16};
use rayon::prelude::*;

use crate::TensorType;

/// Elements that one task converts; a multiple of every block size.
const TASK_ELEMENTS: usize = 1 << 12;

/// Converts whole blocks of finite values, on rayon's threads; none if the format is read only.
///
/// # Panics
/// If `values` is not a whole number of blocks.
pub fn quantize(ty: TensorType, values: &[f32]) -> Option<Vec<u8>> {
    let convert = converter(ty)?;
    let n_bytes = ty.bytes(values.len() as u64);
    assert!(n_bytes.is_some(), "{} values are no whole blocks of {}", values.len(), ty.name());
    let mut bytes = vec![0; n_bytes.unwrap_or(0) as usize];
    let task_bytes = TASK_ELEMENTS / ty.block_elements() * ty.block_bytes();
    values
        .par_chunks(TASK_ELEMENTS)
        .zip(bytes.par_chunks_mut(task_bytes))
        .for_each(|(values, bytes)| convert(values, bytes));
    Some(bytes)
}

/// Whether [`quantize`] produces the format.
pub fn is_written(ty: TensorType) -> bool {
    converter(ty).is_some()
}

fn converter(ty: TensorType) -> Option<fn(&[f32], &mut [u8])> {
    Some(match ty {
        TensorType::F32 => |values, bytes| {
            blocks(values, bytes, |v: &[f32; 1], b: &mut [u8; 4]| *b = v[0].to_le_bytes());
        },
        TensorType::F16 => |values, bytes| {
            blocks(values, bytes, |v: &[f32; 1], b: &mut [u8; 2]| {
                *b = f16::from_f32(v[0]).to_le_bytes();
            });
        },
        TensorType::Bf16 => |values, bytes| {
            blocks(values, bytes, |v: &[f32; 1], b: &mut [u8; 2]| {
                *b = bf16::from_f32(v[0]).to_le_bytes();
            });
        },
        TensorType::Q4_0 => |values, bytes| blocks(values, bytes, small_blocks::q4_0),
        TensorType::Q5_0 => |values, bytes| blocks(values, bytes, small_blocks::q5_0),
        TensorType::Q5_1 => |values, bytes| blocks(values, bytes, small_blocks::q5_1),
        TensorType::Q8_0 => |values, bytes| blocks(values, bytes, small_blocks::q8_0),
        TensorType::Q4K => |values, bytes| blocks(values, bytes, k_quants::q4_k),
        TensorType::Q5K => |values, bytes| blocks(values, bytes, k_quants::q5_k),
        TensorType::Q6K => |values, bytes| blocks(values, bytes, k_quants::q6_k),
        TensorType::Q4_1
        | TensorType::Q2K
        | TensorType::Q3K
        | TensorType::Iq4Nl
        | TensorType::Iq4Xs => return None,
    })
}

/// Applies `convert` to each block of `N` elements and its `B` bytes.
fn blocks<const N: usize, const B: usize>(
    values: &[f32],
    bytes: &mut [u8],
    convert: impl Fn(&[f32; N], &mut [u8; B]),
) {
    let (values, _) = values.as_chunks::<N>();
    let (bytes, _) = bytes.as_chunks_mut::<B>();
    for (values, bytes) in values.iter().zip(bytes) {
        convert(values, bytes);
    }
}

/// Stores an f16 at a position of a block and returns its value.
fn put_scale(block: &mut [u8], at: usize, value: f32) -> f32 {
    let rounded = f16::from_f32(value);
    block[at..at + 2].copy_from_slice(&rounded.to_le_bytes());
    rounded.to_f32()
}
