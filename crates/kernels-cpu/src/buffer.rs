//! Buffers that are written before they are read.
//!
//! Zeroing a buffer first would cost a pass over it on one thread. There is no pool of buffers: the
//! allocator keeps freed ones (`kernels::configure_allocator`).

use std::cell::Cell;

use rayon::prelude::*;

pub(crate) use crate::shared::Shared;
use crate::team::AllThreads as _;

/// Values per task in passes over whole buffers.
pub(crate) const TASK: usize = 16 * 1024;

/// `n` values that `fill` writes, all of them, before anything reads them.
///
/// With debug assertions and in the portable build they start as NaN, so that a test finds values that
/// were not written.
pub(crate) fn filled(n: usize, fill: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut values = Vec::with_capacity(n);
    if cfg!(any(debug_assertions, feature = "portable")) {
        values.resize(n, f32::NAN);
        fill(&mut values);
        return values;
    }
    #[cfg(not(feature = "portable"))]
    #[allow(unsafe_code)]
    // SAFETY: the capacity is `n` and every bit pattern is an f32. `fill` reads no value and writes
    // each of them; the tests of every caller run with debug assertions too, where a value that was not
    // written would be NaN.
    unsafe {
        fill(std::slice::from_raw_parts_mut(values.as_mut_ptr(), n));
        values.set_len(n);
    }
    values
}

/// Copies on all threads.
pub(crate) fn copy(out: &mut [f32], values: &[f32]) {
    let tasks = out.par_chunks_mut(TASK).zip(values.par_chunks(TASK));
    tasks.on_all_threads(|(out, values)| out.copy_from_slice(values));
}

/// Rows of `width` values per task.
pub(crate) fn rows_per_task(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}

thread_local! {
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `run` with buffers of the given lengths and arbitrary contents. The thread keeps them for the
/// next call.
pub(crate) fn scratch<const N: usize, R>(
    sizes: [usize; N],
    run: impl FnOnce([&mut [f32]; N]) -> R,
) -> R {
    // A nested call finds no buffer here and allocates its own.
    let mut all = SCRATCH.take();
    let n = sizes.iter().sum();
    if all.len() < n {
        all.resize(n, 0.0);
    }
    let mut rest = all.as_mut_slice();
    let buffers = sizes.map(|size| {
        let (buffer, others) = std::mem::take(&mut rest).split_at_mut(size);
        rest = others;
        buffer
    });
    let out = run(buffers);
    SCRATCH.set(all);
    out
}

#[cfg(test)]
mod tests {
    use super::{copy, filled};

    #[test]
    fn copies_are_whole() {
        let values: Vec<f32> = (0..40_001).map(|i| i as f32).collect();
        assert_eq!(filled(40_001, |out| copy(out, &values)), values);
        assert_eq!(filled(0, |out| copy(out, &[])), Vec::<f32>::new());
        assert_eq!(filled(3, |out| out.fill(2.0)), [2.0; 3]);
    }
}
