//! Logits in chunks of rows, and gradients back through them, for losses over the vocabulary.
//!
//! Rows without a target are removed first and cost nothing.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::bf16::multiplies_copies;
use crate::buffer::{filled, rows_per_task};
use crate::flex;
use crate::gemm::{scaled_gemm, weight_gemm};
use crate::matrix::{Matrix, MatrixMut, WeightMatrix, Write};
use crate::precision::Precision;
use crate::rounding::{round_on_all_threads, rounded_values};
use crate::team::AllThreads as _;
use crate::weight_storage::StoredWeight;

/// Bytes of logits in memory at a time.
const CHUNK_BYTES: usize = 96 << 20;

/// The rows of hidden states that have a target, and the head's weight.
pub(crate) struct VocabChunks<'a> {
    /// Gathered rows `[n, d]`.
    hidden: std::borrow::Cow<'a, [f32]>,
    /// Whether the hidden states were rounded to bf16.
    is_rounded: bool,
    weight: StoredWeight<'a>,
    /// Indices of those rows, and their targets.
    pub(crate) target_rows: &'a TargetRows,
    pub(crate) d: usize,
    pub(crate) v: usize,
    /// Factor of the product: 1 / temperature.
    scale: f32,
    precision: Precision,
}

/// Rows with a target.
#[derive(Clone, Debug)]
pub(crate) struct TargetRows {
    /// Their indices.
    pub(crate) rows: Vec<usize>,
    /// Their targets.
    pub(crate) targets: Vec<usize>,
    /// Number of rows with and without a target.
    pub(crate) n_all: usize,
}

impl TargetRows {
    pub(crate) fn new(targets: &[i32]) -> Self {
        let with_target = || targets.iter().enumerate().filter(|(_, target)| **target >= 0);
        Self {
            rows: with_target().map(|(row, _)| row).collect(),
            targets: with_target().map(|(_, target)| *target as usize).collect(),
            n_all: targets.len(),
        }
    }

    fn is_all(&self) -> bool {
        self.rows.len() == self.n_all
    }

    /// Moves rows with a target to their indices among all rows; the other rows are zeros.
    pub(crate) fn spread(&self, rows: Vec<f32>, d: usize) -> Vec<f32> {
        if self.is_all() {
            return rows;
        }
        let mut sources = vec![None; self.n_all];
        self.rows.iter().enumerate().for_each(|(source, row)| sources[*row] = Some(source));
        filled(self.n_all * d, |out| {
            let n = rows_per_task(d);
            out.par_chunks_mut(n * d).zip(sources.par_chunks(n)).on_all_threads(
                |(out, sources)| {
                    for (out, source) in out.chunks_mut(d).zip(sources) {
                        match source {
                            Some(source) => {
                                out.copy_from_slice(&rows[source * d..(source + 1) * d]);
                            }
                            None => out.fill(0.0),
                        }
                    }
                },
            );
        })
    }
}

impl<'a> VocabChunks<'a> {
    /// # Panics
    /// If a target is not below the number of the weight's rows.
    pub(crate) fn new(
        hidden: &'a FlexTensor,
        weight: &'a FlexTensor,
        target_rows: &'a TargetRows,
        scale: f32,
        precision: Precision,
    ) -> Self {
        let (d, weight) = (weight.layout().shape()[1], StoredWeight::new(weight));
        let v = weight.len() / d;
        assert!(target_rows.targets.iter().all(|target| *target < v), "a target beyond {v} ids");
        let all = flex::values(hidden);
        let hidden = if target_rows.is_all() {
            all
        } else {
            filled(target_rows.rows.len() * d, |out| {
                let n = rows_per_task(d);
                out.par_chunks_mut(n * d).zip(target_rows.rows.par_chunks(n)).on_all_threads(
                    |(out, rows)| {
                        for (out, row) in out.chunks_mut(d).zip(rows) {
                            out.copy_from_slice(&all[row * d..(row + 1) * d]);
                        }
                    },
                );
            })
            .into()
        };
        let is_rounded = multiplies_copies(precision);
        let hidden = if is_rounded { rounded_values(hidden) } else { hidden };
        Self { hidden, is_rounded, weight, target_rows, d, v, scale, precision }
    }

    fn weight(&self) -> WeightMatrix<'_> {
        self.weight.matrix(self.v, self.d)
    }

    fn hidden(&self, start: usize, m: usize) -> Matrix<'_> {
        let rows = &self.hidden[start * self.d..(start + m) * self.d];
        Matrix::new(rows, m, self.d).with_rounded(self.is_rounded)
    }

    /// Calls `visit` with the first row's index and the logits of each chunk of rows.
    pub(crate) fn for_chunks(&self, mut visit: impl FnMut(usize, &mut [f32])) {
        let n = self.target_rows.rows.len();
        let step = (CHUNK_BYTES / size_of::<f32>() / self.v).clamp(16, 1024).min(n.max(1));
        let mut logits = filled(step * self.v, |logits| logits.fill(0.0));
        for start in (0..n).step_by(step) {
            let m = step.min(n - start);
            let logits = &mut logits[..m * self.v];
            let out = MatrixMut::new(logits, m, self.v);
            let (hidden, weight) = (self.hidden(start, m), self.weight().transposed());
            weight_gemm(out, hidden, weight, Write::Over, self.scale, self.precision);
            visit(start, logits);
        }
    }

    /// Gradients of hidden states and weight from a chunk's gradient of logits, which may be rounded. An empty buffer means that a
    /// gradient is not needed. The first chunk overwrites the weight's gradient, the others add to it.
    pub(crate) fn backward(
        &self,
        start: usize,
        d_logits: &mut [f32],
        d_hidden: &mut [f32],
        d_weight: &mut [f32],
    ) {
        let m = d_logits.len() / self.v;
        if self.is_rounded {
            round_on_all_threads(d_logits);
        }
        let d_logits = Matrix::new(d_logits, m, self.v).with_rounded(self.is_rounded);
        if !d_hidden.is_empty() {
            let out = &mut d_hidden[start * self.d..(start + m) * self.d];
            let out = MatrixMut::new(out, m, self.d);
            let weight = self.weight();
            weight_gemm(out, d_logits, weight, Write::Over, self.scale, self.precision);
        }
        if !d_weight.is_empty() {
            let write = if start == 0 { Write::Over } else { Write::Add };
            let out = MatrixMut::new(d_weight, self.v, self.d);
            let (d_logits, hidden) = (d_logits.transposed(), self.hidden(start, m));
            scaled_gemm(out, d_logits, hidden, write, self.scale, self.precision);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TargetRows;

    #[test]
    fn rows_are_spread_to_their_indices() {
        let target_rows = TargetRows::new(&[-100, 4, -1, 0]);
        assert_eq!(
            (target_rows.rows.as_slice(), target_rows.targets.as_slice()),
            (&[1, 3][..], &[4, 0][..])
        );
        let spread = target_rows.spread(vec![1.0, 2.0, 3.0, 4.0], 2);
        assert_eq!(spread, [0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 3.0, 4.0]);
        assert_eq!(TargetRows::new(&[1, 2]).spread(vec![1.0, 2.0], 1), [1.0, 2.0]);
    }
}
