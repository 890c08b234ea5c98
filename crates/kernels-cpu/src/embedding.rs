//! Embedding: copies rows of a table, and adds their gradients to the table's gradient.
//!
//! Where the table is also the output head, gradients are added in place to the head's gradient, so no second
//! buffer of the table's size exists.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::autodiff::{CpuTensor, InputGradients, Op, record};
use crate::buffer::{filled, rows_per_task};
use crate::cpu_weight::CpuWeight;
use crate::flex;
use crate::team::AllThreads as _;

/// Parts of the table whose gradients are added in parallel.
const PARTS: usize = 16;

#[derive(Clone, Debug)]
struct Embedding {
    weight: CpuTensor,
    ids: Vec<i32>,
}

/// The rows of `weight` `[v, d]` with these ids, in row-major order: `[b, t, d]`.
///
/// # Panics
/// If an id is not below the number of the table's rows.
pub fn embedding(weight: &CpuWeight, [b, t]: [usize; 2], ids: Vec<i32>) -> CpuTensor {
    let [v, d] = weight.dims();
    assert!(ids.iter().all(|id| (0..v as i32).contains(id)), "an id beyond {v} rows");
    let values = weight.stored();
    let out = filled(ids.len() * d, |out| {
        let rows = rows_per_task(d);
        out.par_chunks_mut(rows * d).zip(ids.par_chunks(rows)).on_all_threads(|(out, ids)| {
            for (out, id) in out.chunks_mut(d).zip(ids) {
                values.copy_to(out, *id as usize * d);
            }
        });
    });
    drop(values);
    let out = flex::tensor(out, [b, t, d]);
    match weight.tensor() {
        Some(weight) => record(&[weight], out, || Embedding { weight: weight.clone(), ids }),
        None => CpuTensor::Constant(out),
    }
}

impl Op for Embedding {
    fn backward(self, d_out: FlexTensor, inputs: &mut InputGradients<'_>) {
        let Self { weight, ids } = self;
        let shape = weight.value().layout().shape();
        let [v, d] = [shape[0], shape[1]];
        let d_out = flex::values(&d_out);
        let mut gradient = inputs.take(&weight).unwrap_or_else(|| {
            let zeros = filled(v * d, |out| {
                out.par_chunks_mut(crate::buffer::TASK).on_all_threads(|out| out.fill(0.0));
            });
            flex::tensor(zeros, [v, d])
        });
        // Each part reads all ids, so rows are added in the order of ids on any number of threads.
        let rows = v.div_ceil(PARTS);
        let parts = gradient.storage_mut::<f32>().par_chunks_mut(rows * d).enumerate();
        parts.on_all_threads(|(part, out)| {
            let first = part * rows;
            for (id, d_row) in ids.iter().zip(d_out.chunks(d)) {
                let place = (*id as usize).checked_sub(first).map(|row| row * d);
                let Some(out) = place.and_then(|at| out.get_mut(at..at + d)) else { continue };
                out.iter_mut().zip(d_row).for_each(|(out, d)| *out += d);
            }
        });
        inputs.add(0, gradient);
    }
}
