//! What losses over the vocabulary share on the CPU: logits of some rows at a time, and back.
//!
//! It deliberately computes no logits for rows without a target: they are gathered out first.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::buffer::{filled, rows_per_task};
use crate::flex;
use crate::gemm::{Matrix, MatrixMut, WeightMatrix, Write, scaled_gemm, weight_gemm};
use crate::precision::Precision;
use crate::stored::Stored;

/// Bytes of logits that exist at a time.
const CHUNK_BYTES: usize = 96 << 20;

/// The rows of hidden states that have a target, and the head's weight.
pub(crate) struct Head<'a> {
    /// Gathered rows `[n, d]`.
    hidden: std::borrow::Cow<'a, [f32]>,
    weight: Stored<'a>,
    /// Places of the rows in the whole, and their targets.
    pub(crate) picked: &'a Picked,
    pub(crate) d: usize,
    pub(crate) v: usize,
    /// Multiplies the product: 1 / temperature.
    scale: f32,
    precision: Precision,
}

/// Rows with a target.
#[derive(Clone, Debug)]
pub(crate) struct Picked {
    /// Their places.
    pub(crate) rows: Vec<usize>,
    /// Their targets.
    pub(crate) targets: Vec<usize>,
    /// How many rows there are with and without a target.
    pub(crate) n_all: usize,
}

impl Picked {
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

    /// Picked rows to their places, zeros in the others.
    pub(crate) fn spread(&self, rows: Vec<f32>, d: usize) -> Vec<f32> {
        if self.is_all() {
            return rows;
        }
        let mut sources = vec![None; self.n_all];
        self.rows.iter().enumerate().for_each(|(source, row)| sources[*row] = Some(source));
        filled(self.n_all * d, |out| {
            let n = rows_per_task(d);
            out.par_chunks_mut(n * d).zip(sources.par_chunks(n)).for_each(|(out, sources)| {
                for (out, source) in out.chunks_mut(d).zip(sources) {
                    match source {
                        Some(source) => out.copy_from_slice(&rows[source * d..(source + 1) * d]),
                        None => out.fill(0.0),
                    }
                }
            });
        })
    }
}

impl<'a> Head<'a> {
    /// # Panics
    /// If a target is not below the number of the weight's rows.
    pub(crate) fn new(
        hidden: &'a FlexTensor,
        weight: &'a FlexTensor,
        picked: &'a Picked,
        scale: f32,
        precision: Precision,
    ) -> Self {
        let (d, weight) = (weight.layout().shape()[1], Stored::new(weight));
        let v = weight.len() / d;
        assert!(picked.targets.iter().all(|target| *target < v), "a target beyond {v} ids");
        let all = flex::values(hidden);
        let hidden = if picked.is_all() {
            all
        } else {
            filled(picked.rows.len() * d, |out| {
                let n = rows_per_task(d);
                out.par_chunks_mut(n * d).zip(picked.rows.par_chunks(n)).for_each(|(out, rows)| {
                    for (out, row) in out.chunks_mut(d).zip(rows) {
                        out.copy_from_slice(&all[row * d..(row + 1) * d]);
                    }
                });
            })
            .into()
        };
        Self { hidden, weight, picked, d, v, scale, precision }
    }

    fn weight(&self) -> WeightMatrix<'_> {
        self.weight.matrix(self.v, self.d)
    }

    fn hidden(&self, start: usize, m: usize) -> Matrix<'_> {
        Matrix::new(&self.hidden[start * self.d..(start + m) * self.d], m, self.d)
    }

    /// Shows the logits of each chunk of rows, with the number of its first row.
    pub(crate) fn for_chunks(&self, mut see: impl FnMut(usize, &mut [f32])) {
        let n = self.picked.rows.len();
        let step = (CHUNK_BYTES / size_of::<f32>() / self.v).clamp(16, 1024).min(n.max(1));
        let mut logits = filled(step * self.v, |logits| logits.fill(0.0));
        for start in (0..n).step_by(step) {
            let m = step.min(n - start);
            let logits = &mut logits[..m * self.v];
            let out = MatrixMut::new(logits, m, self.v);
            let (hidden, weight) = (self.hidden(start, m), self.weight().transposed());
            weight_gemm(out, hidden, weight, Write::Over, self.scale, self.precision);
            see(start, logits);
        }
    }

    /// Adds what a chunk's gradient by logits makes of the hidden states and the weight, where they
    /// are wanted (not empty). A weight's gradient is overwritten by the first chunk.
    pub(crate) fn back(
        &self,
        start: usize,
        d_logits: &[f32],
        d_hidden: &mut [f32],
        d_weight: &mut [f32],
    ) {
        let m = d_logits.len() / self.v;
        let d_logits = Matrix::new(d_logits, m, self.v);
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
    use super::Picked;

    #[test]
    fn rows_go_back_to_their_places() {
        let picked = Picked::new(&[-100, 4, -1, 0]);
        assert_eq!((picked.rows.as_slice(), picked.targets.as_slice()), (&[1, 3][..], &[4, 0][..]));
        let spread = picked.spread(vec![1.0, 2.0, 3.0, 4.0], 2);
        assert_eq!(spread, [0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 3.0, 4.0]);
        assert_eq!(Picked::new(&[1, 2]).spread(vec![1.0, 2.0], 1), [1.0, 2.0]);
    }
}
