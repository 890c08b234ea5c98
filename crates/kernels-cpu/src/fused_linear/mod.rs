//! Linear maps of one input: a norm or gate before the products, adapters and a residual after them.
//!
//! The norm or gate is computed again in the backward pass, so only the block's own input is kept. Weight
//! gradients are added in place to the gradient of another use of the same weight. A frozen weight costs one
//! product backward (for the gradient of the input) and no memory.

mod input;
mod layer_norm;

use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use burn_flex::FlexTensor;
use rayon::prelude::*;

pub(crate) use self::input::{InputState, prepare};
use crate::autodiff::{CpuTensor, InputGradients, Op, record};
use crate::bf16::multiplies_copies;
use crate::buffer::{self, filled, rows_per_task};
use crate::cpu_weight::CpuWeight;
use crate::flex;
use crate::gemm::{gemm, scaled_gemm, weight_gemm};
use crate::matrix::{Matrix, MatrixMut, WeightMatrix, Write};
use crate::precision::Precision;
use crate::rounding::rounded_values;
use crate::simd::multiversion;
use crate::skinny_matmul;
use crate::team::AllThreads as _;
use crate::weight_storage::StoredWeight;

/// Rows per partial sum of a bias's gradient.
const BLOCK: usize = 64;

/// Input of the maps: `[b, t, i]` after the named operation.
#[derive(Clone, Debug)]
// Few exist at a time, so their size on the stack does not matter.
#[allow(clippy::large_enum_variant)]
pub enum CpuLinearInput {
    /// The tensor itself.
    Plain(CpuTensor),
    /// RMSNorm of `x`.
    RmsNorm {
        /// `[b, t, i]`
        x: CpuTensor,
        /// `[i]`
        weight: CpuTensor,
        /// Added to the mean square.
        eps: f32,
    },
    /// LayerNorm of `x`.
    LayerNorm {
        /// `[b, t, i]`
        x: CpuTensor,
        /// `[i]`
        weight: CpuTensor,
        /// `[i]`
        bias: Option<CpuTensor>,
        /// Added to the variance.
        eps: f32,
    },
    /// GELU by the tanh approximation.
    GeluTanh(CpuTensor),
    /// SwiGLU of the two halves of `[b, t, 2 · i]`: gates, then the values that they scale.
    SwiGlu(CpuTensor),
}

/// Axis order of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightLayout {
    /// `[out, in]`, as Hugging Face's Linear.
    OutIn,
    /// `[in, out]`, as GPT-2's Conv1D.
    InOut,
}

/// A low-rank update of a weight: `scale · B·A`.
#[derive(Clone, Debug)]
pub struct CpuAdapter {
    /// `[r, in]`
    pub a: CpuTensor,
    /// `[out, r]`
    pub b: CpuTensor,
    /// Factor of the product.
    pub scale: f32,
}

/// One linear map.
#[derive(Clone, Debug)]
pub struct CpuLinearMap {
    /// The weight.
    pub weight: CpuWeight,
    /// Axis order of the weight.
    pub layout: WeightLayout,
    /// `[out]`
    pub bias: Option<CpuTensor>,
    /// Update of the weight.
    pub adapter: Option<CpuAdapter>,
}

/// A map with the indices of its inputs.
#[derive(Clone, Debug)]
struct MapState {
    weight: CpuWeight,
    layout: WeightLayout,
    /// None of a weight in blocks.
    weight_idx: Option<usize>,
    bias_idx: Option<usize>,
    adapter: Option<AdapterState>,
    d_in: usize,
    d_out: usize,
    /// Its first column in a row of the output.
    start: usize,
    /// Of its products, forward and backward.
    precision: Precision,
}

#[derive(Clone, Debug)]
struct AdapterState {
    a: CpuTensor,
    b: CpuTensor,
    a_idx: usize,
    rank: usize,
    scale: f32,
    /// x·Aᵀ, kept from the forward pass.
    narrow: Arc<Vec<f32>>,
}

#[derive(Clone, Debug)]
struct FusedLinear {
    input: InputState,
    maps: Vec<MapState>,
    n: usize,
    d_in: usize,
    width: usize,
    residual_idx: Option<usize>,
}

/// The outputs of up to three `maps` of one input, concatenated in the last dimension, plus `residual`:
/// `[b, t, o]`.
///
/// # Panics
/// If there is no map, or shapes do not fit.
pub fn fused_linear(
    input: CpuLinearInput,
    maps: Vec<CpuLinearMap>,
    residual: Option<CpuTensor>,
    precision: Precision,
) -> CpuTensor {
    let (mut inputs, input) = prepare(input);
    let [b, t, _] = inputs[0].dims();
    let n = b * t;
    let mut start = 0;
    let mut biases = Vec::new();
    let mut states = Vec::with_capacity(maps.len());
    for map in maps {
        let (bias, state) = map_state(map, start, precision, &mut inputs);
        start += state.d_out;
        biases.push(bias);
        states.push(state);
    }
    let (d_in, width) = (states[0].d_in, start);
    assert!(states.iter().all(|map| map.d_in == d_in), "maps of one input width");
    let residual_idx = residual.as_ref().map(|_| inputs.len());

    // Products of few rows, in decoding, take the values as they are.
    let is_rounded = multiplies_copies(precision) && !states.iter().any(|map| map.is_skinny(n));
    let x = input.values();
    let x = if is_rounded { rounded_values(x) } else { x };
    let x = Matrix::new(&x, n, d_in).with_rounded(is_rounded);
    let out = filled(n * width, |out| {
        let write = fill_before(out, residual.as_ref(), &biases, &states, width);
        for map in &mut states {
            map.forward(x, &mut out[map.start..], width, write);
        }
    });
    let out = flex::tensor(out, Shape::new([b, t, width]));
    inputs.extend(residual);
    let inputs: Vec<&CpuTensor> = inputs.iter().collect();
    let needs_x = states.iter().any(MapState::needs_x);
    let op = || FusedLinear {
        input: if needs_x { input.clone() } else { input.without_values() },
        maps: states,
        n,
        d_in,
        width,
        residual_idx,
    };
    record(&inputs, out, op)
}

/// Appends the map's tensors to the operation's inputs; returns its bias and its state.
fn map_state(
    map: CpuLinearMap,
    start: usize,
    precision: Precision,
    inputs: &mut Vec<CpuTensor>,
) -> (Option<CpuTensor>, MapState) {
    let CpuLinearMap { weight, layout, bias, adapter } = map;
    let [rows, columns] = weight.dims();
    let (d_out, d_in) = match layout {
        WeightLayout::OutIn => (rows, columns),
        WeightLayout::InOut => (columns, rows),
    };
    let weight_idx = weight.tensor().map(|_| inputs.len());
    inputs.extend(weight.tensor().cloned());
    let bias_idx = bias.as_ref().map(|_| inputs.len());
    inputs.extend(bias.clone());
    let adapter = adapter.map(|CpuAdapter { a, b, scale }| {
        let a_idx = inputs.len();
        inputs.extend([a.clone(), b.clone()]);
        let [rank, _] = a.dims();
        AdapterState { a, b, a_idx, rank, scale, narrow: Arc::default() }
    });
    let state =
        MapState { weight, layout, weight_idx, bias_idx, adapter, d_in, d_out, start, precision };
    (bias, state)
}

/// Writes the residual and the biases, to which the products are added; [`Write::Over`] if there are none.
fn fill_before(
    out: &mut [f32],
    residual: Option<&CpuTensor>,
    biases: &[Option<CpuTensor>],
    maps: &[MapState],
    width: usize,
) -> Write {
    if residual.is_none() && biases.iter().all(Option::is_none) {
        return Write::Over;
    }
    match residual {
        Some(residual) => buffer::copy(out, &flex::values(residual.value())),
        None => out.fill(0.0),
    }
    for (bias, map) in biases.iter().zip(maps) {
        let Some(bias) = bias else { continue };
        let bias = flex::values(bias.value());
        out.par_chunks_mut(width * rows_per_task(width)).on_all_threads(|rows| {
            for row in rows.chunks_mut(width) {
                add(&mut row[map.start..map.start + map.d_out], &bias);
            }
        });
    }
    Write::Add
}

impl MapState {
    /// Whether the backward pass needs the input's values.
    fn needs_x(&self) -> bool {
        let adapter = self.adapter.as_ref();
        self.weight.tensor().is_some_and(CpuTensor::is_tracked)
            || adapter.is_some_and(|adapter| adapter.a.is_tracked())
    }

    /// The weight as `[out, in]`.
    fn matrix<'a>(&self, weight: &'a StoredWeight<'_>) -> WeightMatrix<'a> {
        match self.layout {
            WeightLayout::OutIn => weight.matrix(self.d_out, self.d_in),
            WeightLayout::InOut => weight.matrix(self.d_in, self.d_out).transposed(),
        }
    }

    /// Whether [`skinny_matmul`] computes a product of `n` rows. Only in decoding: training rounds in one
    /// way, whatever the size of its batches.
    fn is_skinny(&self, n: usize) -> bool {
        self.weight.is_constant()
            && self.layout == WeightLayout::OutIn
            && n <= skinny_matmul::MAX_ROWS
            && skinny_matmul::is_supported()
    }

    fn forward(&mut self, x: Matrix, out: &mut [f32], width: usize, write: Write) {
        let n = x.n_rows();
        let weight = self.weight.stored();
        if self.is_skinny(n) {
            if write == Write::Over {
                out.chunks_mut(width).for_each(|row| row[..self.d_out].fill(0.0));
            }
            skinny_matmul::add_product(out, width, x.values(), &weight, n, self.precision);
        } else {
            let y = MatrixMut::strided(out, n, self.d_out, width);
            let weight = self.matrix(&weight).transposed();
            weight_gemm(y, x, weight, write, 1.0, self.precision);
        }
        drop(weight);
        let (d_out, precision) = (self.d_out, self.precision);
        if let Some(adapter) = &mut self.adapter {
            let (a, b) = (flex::values(adapter.a.value()), flex::values(adapter.b.value()));
            let (rank, d_in) = (adapter.rank, self.d_in);
            let narrow = filled(n * rank, |narrow| {
                let a = Matrix::new(&a, rank, d_in).transposed();
                gemm(MatrixMut::new(narrow, n, rank), x, a, Write::Over, precision);
            });
            let y = MatrixMut::strided(out, n, d_out, width);
            let b = Matrix::new(&b, d_out, rank).transposed();
            scaled_gemm(y, Matrix::new(&narrow, n, rank), b, Write::Add, adapter.scale, precision);
            adapter.narrow = Arc::new(narrow);
        }
    }

    /// Adds to the gradient of the maps' input (or overwrites `d_input`, by `write`) and to the gradients
    /// of the map's parameters.
    fn backward(
        &self,
        d_out: Matrix,
        x: Option<Matrix>,
        d_input: Option<&mut [f32]>,
        write: Write,
        inputs: &mut InputGradients<'_>,
    ) {
        let (n, needs_input, precision) = (d_out.n_rows(), d_input.is_some(), self.precision);
        let adapter = self.adapter.as_ref();
        // scale · dy·B
        let d_narrow = adapter.filter(|adapter| needs_input || inputs.needs(adapter.a_idx));
        let d_narrow = d_narrow.map(|adapter| {
            let b = flex::values(adapter.b.value());
            filled(n * adapter.rank, |out| {
                let b = Matrix::new(&b, self.d_out, adapter.rank);
                let out = MatrixMut::new(out, n, adapter.rank);
                scaled_gemm(out, d_out, b, Write::Over, adapter.scale, precision);
            })
        });
        if let Some(d_input) = d_input {
            let weight = self.weight.stored();
            let out = MatrixMut::new(d_input, n, self.d_in);
            weight_gemm(out, d_out, self.matrix(&weight), write, 1.0, precision);
            if let (Some(adapter), Some(d_narrow)) = (adapter, &d_narrow) {
                let a = flex::values(adapter.a.value());
                let a = Matrix::new(&a, adapter.rank, self.d_in);
                let d_narrow = Matrix::new(d_narrow, n, adapter.rank);
                let out = MatrixMut::new(d_input, n, self.d_in);
                gemm(out, d_narrow, a, Write::Add, precision);
            }
        }
        if let (Some(x), Some(weight), Some(idx)) = (x, self.weight.tensor(), self.weight_idx)
            && inputs.needs(idx)
        {
            let (a, b) = match self.layout {
                WeightLayout::OutIn => (d_out.transposed(), x),
                WeightLayout::InOut => (x.transposed(), d_out),
            };
            add_product(weight, idx, (a, b), 1.0, precision, inputs);
        }
        let Some(adapter) = adapter else { return };
        if let (Some(x), Some(d_narrow)) = (x, &d_narrow)
            && inputs.needs(adapter.a_idx)
        {
            let d_narrow = Matrix::new(d_narrow, n, adapter.rank).transposed();
            add_product(&adapter.a, adapter.a_idx, (d_narrow, x), 1.0, precision, inputs);
        }
        if inputs.needs(adapter.a_idx + 1) {
            let narrow = Matrix::new(&adapter.narrow, n, adapter.rank);
            let (idx, d_out) = (adapter.a_idx + 1, d_out.transposed());
            add_product(&adapter.b, idx, (d_out, narrow), adapter.scale, precision, inputs);
        }
    }
}

/// Adds `scale · a · b` to a parameter's gradient.
fn add_product(
    parameter: &CpuTensor,
    idx: usize,
    (a, b): (Matrix, Matrix),
    scale: f32,
    precision: Precision,
    inputs: &mut InputGradients<'_>,
) {
    let (rows, columns) = (a.n_rows(), b.n_columns());
    let gradient = match inputs.take(parameter) {
        Some(mut gradient) => {
            let out = MatrixMut::new(gradient.storage_mut::<f32>(), rows, columns);
            scaled_gemm(out, a, b, Write::Add, scale, precision);
            gradient
        }
        None => {
            let values = filled(rows * columns, |out| {
                let out = MatrixMut::new(out, rows, columns);
                scaled_gemm(out, a, b, Write::Over, scale, precision);
            });
            flex::tensor(values, [rows, columns])
        }
    };
    inputs.add(idx, gradient);
}

impl Op for FusedLinear {
    fn backward(self, d_out: FlexTensor, inputs: &mut InputGradients<'_>) {
        let Self { input, maps, n, d_in, width, residual_idx } = self;
        let values = flex::values(&d_out);
        for map in &maps {
            if let Some(idx) = map.bias_idx.filter(|idx| inputs.needs(*idx)) {
                let sums = column_sums(&values, width, map.start, map.d_out);
                inputs.add(idx, flex::tensor(sums, [map.d_out]));
            }
        }
        let needs_input = (0..input.n_inputs()).any(|idx| inputs.needs(idx));
        let is_rounded = maps.iter().any(|map| multiplies_copies(map.precision));
        let prepared = |x| if is_rounded { rounded_values(x) } else { x };
        let x = maps.iter().any(MapState::needs_x).then(|| prepared(input.values()));
        let x = x.as_deref().map(|x| Matrix::new(x, n, d_in).with_rounded(is_rounded));
        let multiplied = prepared(values);
        let d_out_of = |map: &MapState| {
            let from = map.start.min(multiplied.len());
            let values = &multiplied[from..];
            Matrix::strided(values, n, map.d_out, width).with_rounded(is_rounded)
        };
        let mut write = Write::Over;
        let mut backward = |mut d_input: Option<&mut [f32]>, inputs: &mut InputGradients<'_>| {
            for map in &maps {
                map.backward(d_out_of(map), x, d_input.as_deref_mut(), write, inputs);
                write = Write::Add;
            }
        };
        if needs_input {
            let d_input = filled(n * d_in, |d_input| backward(Some(d_input), inputs));
            if let InputState::Plain(_) = input {
                let shape = d_out.shape();
                inputs.add(0, flex::tensor(d_input, [shape[0], shape[1], d_in]));
            } else {
                input.backward(d_input, inputs);
            }
        } else {
            backward(None, inputs);
        }
        drop(multiplied);
        if let Some(idx) = residual_idx {
            inputs.add(idx, d_out);
        }
    }
}

/// Column sums over blocks of rows whose borders do not depend on the threads.
fn column_sums(values: &[f32], width: usize, start: usize, n_columns: usize) -> Vec<f32> {
    let sum_rows = |rows: &[f32]| {
        let mut sums = vec![0.0; n_columns];
        rows.chunks(width).for_each(|row| add(&mut sums, &row[start..start + n_columns]));
        sums
    };
    let parts = values.par_chunks(BLOCK * width).map_on_all_threads(sum_rows);
    let mut sums = vec![0.0; n_columns];
    for part in &parts {
        add(&mut sums, part);
    }
    sums
}

multiversion! {
    fn add(out: &mut [f32], values: &[f32]) {
        for (out, value) in out.iter_mut().zip(values) {
            *out += value;
        }
    }
}
