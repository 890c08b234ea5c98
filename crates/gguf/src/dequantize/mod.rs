//! Conversion of stored blocks to f32. Every value equals ggml's to the bit.

mod iq4;
mod k_quants;
mod small_blocks;

use half::{bf16, f16};
use rayon::prelude::*;

use crate::TensorType;

/// Elements that one task converts; a multiple of every block size.
const TASK_ELEMENTS: usize = 1 << 16;

/// Converts whole blocks to f32, on rayon's threads.
///
/// # Panics
/// If `out` is not a whole number of blocks or `bytes` is not their size.
pub fn dequantize(ty: TensorType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(ty.bytes(out.len() as u64), Some(bytes.len() as u64), "bytes of {}", ty.name());
    let task_bytes = TASK_ELEMENTS / ty.block_elements() * ty.block_bytes();
    out.par_chunks_mut(TASK_ELEMENTS)
        .zip(bytes.par_chunks(task_bytes))
        .for_each(|(out, bytes)| convert(ty, bytes, out));
}

fn convert(ty: TensorType, bytes: &[u8], out: &mut [f32]) {
    match ty {
        TensorType::F32 => blocks(bytes, out, |b, out: &mut [f32; 1]| {
            out[0] = f32::from_le_bytes(*b);
        }),
        TensorType::F16 => blocks(bytes, out, |b, out: &mut [f32; 1]| {
            out[0] = f16::from_le_bytes(*b).to_f32();
        }),
        TensorType::Bf16 => blocks(bytes, out, |b, out: &mut [f32; 1]| {
            out[0] = bf16::from_le_bytes(*b).to_f32();
        }),
        TensorType::Q4_0 => blocks(bytes, out, small_blocks::q4_0),
        TensorType::Q4_1 => blocks(bytes, out, small_blocks::q4_1),
        TensorType::Q5_0 => blocks(bytes, out, small_blocks::q5_0),
        TensorType::Q5_1 => blocks(bytes, out, small_blocks::q5_1),
        TensorType::Q8_0 => blocks(bytes, out, small_blocks::q8_0),
        TensorType::Q2K => blocks(bytes, out, k_quants::q2_k),
        TensorType::Q3K => blocks(bytes, out, k_quants::q3_k),
        TensorType::Q4K => blocks(bytes, out, k_quants::q4_k),
        TensorType::Q5K => blocks(bytes, out, k_quants::q5_k),
        TensorType::Q6K => blocks(bytes, out, k_quants::q6_k),
        TensorType::Iq4Nl => blocks(bytes, out, iq4::iq4_nl),
        TensorType::Iq4Xs => blocks(bytes, out, iq4::iq4_xs),
    }
}

/// Applies `convert` to each block of `B` bytes and its `N` elements.
fn blocks<const B: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    convert: impl Fn(&[u8; B], &mut [f32; N]),
) {
    let (bytes, _) = bytes.as_chunks::<B>();
    let (out, _) = out.as_chunks_mut::<N>();
    for (bytes, out) in bytes.iter().zip(out) {
        convert(bytes, out);
    }
}

/// The f16 at a position of a block.
fn scale_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}
