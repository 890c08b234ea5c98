//! The product of few rows with a weight, as decoding needs it: the weight is read once, as it lies.
//!
//! General products copy the weight into another order first, which costs more than the product
//! itself where rows are few. It deliberately knows no layout but `[out, in]`.

use rayon::prelude::*;

use crate::buffer::{Shared, scratch};

/// The most rows that are few.
pub(crate) const MAX_ROWS: usize = 64;
/// Rows of the weight in a task: about as many as a second-level cache holds of a small model's.
const TASK_OUTS: usize = 64;
/// Lanes of a vector of input rows.
const LANES: usize = 16;
/// Rows of the weight that are multiplied at a time.
const OUTS: usize = 8;

/// Whether this processor has the instructions that [`product`] is written in.
pub(crate) fn is_supported() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512f")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Adds `x · weightᵀ` to `out`: x `[n, i]`, weight `[o, i]`, out `[n, o]` with rows `width` apart.
///
/// # Panics
/// If shapes don't fit, rows are too many, or the processor lacks the instructions.
pub(crate) fn add_product(out: &mut [f32], width: usize, x: &[f32], weight: &[f32], n: usize) {
    assert!(is_supported() && (1..=MAX_ROWS).contains(&n), "{n} rows");
    let d_in = x.len() / n;
    let d_out = weight.len() / d_in.max(1);
    assert!(
        x.len() == n * d_in && weight.len() == d_out * d_in && d_out <= width,
        "{n} rows of {d_in} by {d_out}"
    );
    assert!(out.len() >= (n - 1) * width + d_out, "{n} rows every {width}");
    // Columns of x as vectors, so that one value of the weight meets all rows at once.
    let vectors = n.div_ceil(LANES);
    let mut columns = vec![0.0_f32; d_in * vectors * LANES];
    for (row, x) in x.chunks(d_in).enumerate() {
        for (idx, value) in x.iter().enumerate() {
            columns[idx * vectors * LANES + row] = *value;
        }
    }
    let out = Shared::new(out);
    let task = |(task, weight): (usize, &[f32])| {
        scratch([OUTS * vectors * LANES], |[tile]| {
            for (idx, weight) in weight.chunks(OUTS * d_in).enumerate() {
                let n_outs = weight.len() / d_in;
                multiply(tile, &columns, weight, d_in, vectors);
                let first = task * TASK_OUTS + idx * OUTS;
                for row in 0..n {
                    #[allow(unsafe_code)]
                    // SAFETY: these columns of the output are this task's alone.
                    let out = unsafe { out.slice(row * width + first, n_outs) };
                    for (idx, out) in out.iter_mut().enumerate() {
                        *out += tile[idx * vectors * LANES + row];
                    }
                }
            }
        });
    };
    let tasks = weight.par_chunks(TASK_OUTS * d_in).enumerate();
    if n * weight.len() < 64 * 1024 {
        weight.chunks(TASK_OUTS * d_in).enumerate().for_each(task);
    } else {
        tasks.for_each(task);
    }
}

/// Up to [`OUTS`] rows of the weight times all columns: `tile[out][row]`.
#[cfg(target_arch = "x86_64")]
fn multiply(tile: &mut [f32], columns: &[f32], weight: &[f32], d_in: usize, vectors: usize) {
    let whole = weight.len() == OUTS * d_in;
    for vector in 0..vectors {
        #[allow(unsafe_code)]
        // SAFETY: the caller asked for the instructions; the lengths are checked inside.
        unsafe {
            if whole {
                avx512::columns::<OUTS>(tile, columns, weight, d_in, vectors, vector);
            } else {
                for (idx, weight) in weight.chunks(d_in).enumerate() {
                    let tile = &mut tile[idx * vectors * LANES..];
                    avx512::columns::<1>(tile, columns, weight, d_in, vectors, vector);
                }
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn multiply(_: &mut [f32], _: &[f32], _: &[f32], _: usize, _: usize) {
    unreachable!("the caller asked whether it is supported")
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    //! The loop over the inner dimension, with the sums in registers.

    use std::arch::x86_64::{
        _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_storeu_ps,
    };

    use super::LANES;

    /// # Safety
    /// The processor must have AVX-512F.
    #[target_feature(enable = "avx512f")]
    #[allow(unsafe_code)]
    pub(super) unsafe fn columns<const N: usize>(
        tile: &mut [f32],
        columns: &[f32],
        weight: &[f32],
        d_in: usize,
        vectors: usize,
        vector: usize,
    ) {
        let stride = vectors * LANES;
        assert!(vector < vectors && weight.len() == N * d_in && columns.len() == d_in * stride);
        assert!(tile.len() >= (N - 1) * stride + (vector + 1) * LANES);
        let (x, w) = (columns.as_ptr(), weight.as_ptr());
        // Two sums each, so that one addition need not wait for the last.
        let mut even = [_mm512_setzero_ps(); N];
        let mut odd = [_mm512_setzero_ps(); N];
        let mut idx = 0;
        // SAFETY: `idx + 1 < d_in`, so each read of the columns ends within `d_in * stride` values and
        // each of the weight within `N * d_in`.
        unsafe {
            while idx + 1 < d_in {
                let first = _mm512_loadu_ps(x.add(idx * stride + vector * LANES));
                let second = _mm512_loadu_ps(x.add((idx + 1) * stride + vector * LANES));
                for (out, (even, odd)) in even.iter_mut().zip(&mut odd).enumerate() {
                    let w = w.add(out * d_in + idx);
                    *even = _mm512_fmadd_ps(_mm512_set1_ps(*w), first, *even);
                    *odd = _mm512_fmadd_ps(_mm512_set1_ps(*w.add(1)), second, *odd);
                }
                idx += 2;
            }
            if idx < d_in {
                let last = _mm512_loadu_ps(x.add(idx * stride + vector * LANES));
                for (out, even) in even.iter_mut().enumerate() {
                    let w = _mm512_set1_ps(*w.add(out * d_in + idx));
                    *even = _mm512_fmadd_ps(w, last, *even);
                }
            }
            for (out, (even, odd)) in even.into_iter().zip(odd).enumerate() {
                let at = tile.as_mut_ptr().add(out * stride + vector * LANES);
                _mm512_storeu_ps(at, _mm512_add_ps(even, odd));
            }
        }
    }
}

// A skipped test says so.
#[cfg(test)]
#[allow(clippy::print_stdout)]
mod tests {
    use super::{MAX_ROWS, add_product, is_supported};

    #[test]
    fn products_of_any_size() {
        if !is_supported() {
            println!("skipped: no AVX-512 here");
            return;
        }
        for (n, d_in, d_out) in
            [(1, 1, 1), (2, 3, 5), (16, 8, 8), (17, 9, 70), (MAX_ROWS, 33, 130), (5, 256, 512)]
        {
            let value = |i: usize| ((i * 37 + 11) % 64) as f32 / 32.0 - 1.0;
            let x: Vec<f32> = (0..n * d_in).map(value).collect();
            let weight: Vec<f32> = (0..d_out * d_in).map(|i| value(i + 5)).collect();
            let width = d_out + 3;
            let mut out = vec![0.25; n * width];
            add_product(&mut out, width, &x, &weight, n);
            for (row, out) in out.chunks(width).enumerate() {
                for (o, got) in out.iter().enumerate() {
                    let sum = |o: usize| -> f64 {
                        let (x, w) = (&x[row * d_in..], &weight[o * d_in..][..d_in]);
                        x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
                    };
                    let want = if o < d_out { 0.25 + sum(o) } else { 0.25 };
                    assert!(
                        (f64::from(*got) - want).abs() < 1e-4,
                        "{n} {d_in} {d_out}: {got} {want}"
                    );
                }
            }
        }
    }
}
