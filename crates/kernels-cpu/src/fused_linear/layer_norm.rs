//! LayerNorm as the input of linear maps: statistics are kept, values are computed again where needed.

use burn::backend::TensorMetadata;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::autodiff::InputGradients;
use crate::buffer::{filled, rows_per_task};
use crate::flex;
use crate::norm_rows::{layer_norm_row, layer_norm_row_backward, mean_and_rstd};
use crate::team::AllThreads as _;

/// Rows per partial sum of the parameters' gradients.
const BLOCK: usize = 64;

/// The input `[.., d]`, the parameters, and the mean and 1 / standard deviation of each row.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    x: FlexTensor,
    weight: FlexTensor,
    bias: Option<FlexTensor>,
    /// `[n, 2]`
    statistics: FlexTensor,
}

impl LayerNorm {
    pub(super) fn new(
        x: &FlexTensor,
        weight: &FlexTensor,
        bias: Option<FlexTensor>,
        eps: f32,
    ) -> Self {
        let d = weight.layout().shape()[0];
        let values = flex::values(x);
        let n = values.len() / d.max(1);
        let statistics = filled(2 * n, |out| {
            let rows = rows_per_task(d);
            out.par_chunks_mut(2 * rows).zip(values.par_chunks(rows * d)).on_all_threads(
                |(out, x)| {
                    for (out, x) in out.as_chunks_mut::<2>().0.iter_mut().zip(x.chunks(d)) {
                        *out = mean_and_rstd(x, eps);
                    }
                },
            );
        });
        let (x, weight) = (x.clone(), weight.clone());
        Self { x, weight, bias, statistics: flex::tensor(statistics, [n, 2]) }
    }

    pub(super) fn n_inputs(&self) -> usize {
        2 + usize::from(self.bias.is_some())
    }

    /// The norm.
    pub(super) fn values(&self) -> Vec<f32> {
        let (x, weight) = (flex::values(&self.x), flex::values(&self.weight));
        let bias = self.bias.as_ref().map(flex::values).unwrap_or_default();
        let (d, statistics) = (weight.len(), flex::values(&self.statistics));
        let rows = rows_per_task(d);
        filled(x.len(), |out| {
            let tasks = out.par_chunks_mut(rows * d).zip(x.par_chunks(rows * d));
            tasks.zip(statistics.par_chunks(2 * rows)).on_all_threads(|((out, x), statistics)| {
                let rows = out.chunks_mut(d).zip(x.chunks(d)).zip(statistics.as_chunks::<2>().0);
                rows.for_each(|((out, x), of)| layer_norm_row(out, x, &weight, &bias, *of));
            });
        })
    }

    /// Adds the gradients of the inputs, given the gradient of the norm.
    pub(super) fn backward(&self, mut d_out: Vec<f32>, inputs: &mut InputGradients<'_>) {
        let (x, weight) = (flex::values(&self.x), flex::values(&self.weight));
        let (d, statistics) = (weight.len(), flex::values(&self.statistics));
        let needs_parameters = inputs.needs(1) || (self.bias.is_some() && inputs.needs(2));
        let blocks = d_out.par_chunks_mut(BLOCK * d).zip(x.par_chunks(BLOCK * d));
        let parts = blocks.zip(statistics.par_chunks(2 * BLOCK)).map_on_all_threads(
            |((d_out, x), statistics)| {
                let mut sums = [(); 2].map(|()| vec![0.0; if needs_parameters { d } else { 0 }]);
                let [d_weight, d_bias] = &mut sums;
                let rows = d_out.chunks_mut(d).zip(x.chunks(d)).zip(statistics.as_chunks::<2>().0);
                for ((d_out, x), of) in rows {
                    if needs_parameters {
                        d_bias.iter_mut().zip(d_out.iter()).for_each(|(sum, d_out)| *sum += d_out);
                    }
                    layer_norm_row_backward(d_out, x, &weight, *of, d_weight);
                }
                sums
            },
        );
        inputs.add(0, flex::tensor(d_out, self.x.shape()));
        for idx in 0..self.n_inputs() - 1 {
            if inputs.needs(1 + idx) {
                let mut sum = vec![0.0; d];
                for part in &parts {
                    sum.iter_mut().zip(&part[idx]).for_each(|(sum, part)| *sum += part);
                }
                inputs.add(1 + idx, flex::tensor(sum, [d]));
            }
        }
    }
}
