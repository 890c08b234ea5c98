//! Conversion of stored blocks to f32, on all threads.

use ggml_blocks::decode;
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
    out.par_chunks_mut(TASK_ELEMENTS)
        .zip(bytes.par_chunks(task_bytes(ty)))
        .for_each(|(out, bytes)| decode(ty, bytes, out));
}

/// The first value that is not finite, with its index, if there is one; never holds all values.
pub(crate) fn first_not_finite(ty: TensorType, bytes: &[u8]) -> Option<(usize, f32)> {
    let in_task = |(task, bytes): (usize, &[u8])| {
        let mut values = vec![0.0; bytes.len() / ty.block_bytes() * ty.block_elements()];
        decode(ty, bytes, &mut values);
        let idx = values.iter().position(|value| !value.is_finite())?;
        Some((task * TASK_ELEMENTS + idx, values[idx]))
    };
    bytes.par_chunks(task_bytes(ty)).enumerate().find_map_first(in_task)
}

fn task_bytes(ty: TensorType) -> usize {
    TASK_ELEMENTS / ty.block_elements() * ty.block_bytes()
}
