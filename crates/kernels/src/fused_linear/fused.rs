//! The products of [`super::project`] on the CPU, and how gradients flow back through them.
//!
//! Weight gradients are added to what another use of the same weight left; a frozen weight costs
//! one product backward (by the input) and no memory.

use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::tensor::{Shape, Tensor};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::read::{CpuRead, read_fits, split};
use super::{LinearInput, LinearMap, WeightLayout};
use crate::autodiff::{self, Cpu, InputGradients, Op, record};
use crate::buffer::{self, filled, rows_per_task};
use crate::few_rows;
use crate::flex;
use crate::gemm::{Matrix, MatrixMut, WeightMatrix, Write, gemm, scaled_gemm, weight_gemm};
use crate::precision::{Precision, precision};
use crate::stored::{Stored, weight_fits};
use crate::vector::widest;

/// Rows whose part of a bias's gradient is summed first.
const BLOCK: usize = 64;

pub(super) fn fits(read: &LinearInput, maps: &[LinearMap], residual: Option<&Tensor<3>>) -> bool {
    let map_fits = |map: &LinearMap| {
        weight_fits(&map.weight)
            && map.bias_o.as_ref().is_none_or(autodiff::fits)
            && map.adapter.as_ref().is_none_or(|adapter| {
                autodiff::fits(&adapter.a_ri) && autodiff::fits(&adapter.b_or)
            })
    };
    (1..=3).contains(&maps.len())
        && read_fits(read)
        && residual.is_none_or(autodiff::fits)
        && maps.iter().all(map_fits)
}

/// One map with its inputs' places.
#[derive(Clone, Debug)]
struct CpuMap {
    weight: Cpu,
    layout: WeightLayout,
    weight_idx: usize,
    bias_idx: Option<usize>,
    adapter: Option<CpuAdapter>,
    d_in: usize,
    d_out: usize,
    /// Where its outputs start in a row.
    start: usize,
    /// Of its products, forward and backward.
    precision: Precision,
}

#[derive(Clone, Debug)]
struct CpuAdapter {
    a: Cpu,
    b: Cpu,
    a_idx: usize,
    rank: usize,
    scale: f32,
    /// x·Aᵀ, kept from the forward pass.
    narrow: Arc<Vec<f32>>,
}

#[derive(Clone, Debug)]
struct Project {
    read: CpuRead,
    maps: Vec<CpuMap>,
    n: usize,
    d_in: usize,
    width: usize,
    residual_idx: Option<usize>,
}

pub(super) fn fused_linear(
    read: LinearInput,
    maps: &[LinearMap],
    residual_bto: Option<Tensor<3>>,
) -> Tensor<3> {
    let (mut inputs, read) = split(read);
    let shape = inputs[0].value().shape();
    let (b, t) = (shape[0], shape[1]);
    let n = b * t;
    let mut start = 0;
    let mut biases = Vec::new();
    let mut cpu_maps = Vec::with_capacity(maps.len());
    for map in maps {
        let (dims, d_out) = (map.weight.dims(), map.d_out());
        let weight = Cpu::new(map.weight.clone());
        let weight_idx = inputs.len();
        inputs.push(weight.clone());
        let bias = map.bias_o.clone().map(Cpu::new);
        let bias_idx = bias.as_ref().map(|_| inputs.len());
        inputs.extend(bias.clone());
        biases.push(bias);
        let adapter = map.adapter.as_ref().map(|adapter| {
            let (a, b) = (Cpu::new(adapter.a_ri.clone()), Cpu::new(adapter.b_or.clone()));
            let a_idx = inputs.len();
            inputs.extend([a.clone(), b.clone()]);
            let (rank, scale) = (adapter.a_ri.dims()[0], adapter.scale as f32);
            CpuAdapter { a, b, a_idx, rank, scale, narrow: Arc::default() }
        });
        let d_in = dims[0] * dims[1] / d_out;
        let layout = map.layout;
        cpu_maps.push(CpuMap {
            weight,
            layout,
            weight_idx,
            bias_idx,
            adapter,
            d_in,
            d_out,
            start,
            precision: precision(),
        });
        start += d_out;
    }
    let (d_in, width) = (cpu_maps[0].d_in, start);
    assert!(cpu_maps.iter().all(|map| map.d_in == d_in), "maps of one input width");
    let residual = residual_bto.map(Cpu::new);
    let residual_idx = residual.as_ref().map(|_| inputs.len());

    let x = read.values();
    let x = Matrix::new(&x, n, d_in);
    let out = filled(n * width, |out| {
        let filled = fill_before(out, residual.as_ref(), &biases, &cpu_maps, width);
        for map in &mut cpu_maps {
            map.forward(x, &mut out[map.start..], width, filled);
        }
    });
    let out = flex::tensor(out, Shape::new([b, t, width]));
    inputs.extend(residual);
    let inputs: Vec<&Cpu> = inputs.iter().collect();
    let needs_x = cpu_maps.iter().any(CpuMap::wants_x);
    let op = || Project {
        read: if needs_x { read.clone() } else { read.without_values() },
        maps: cpu_maps,
        n,
        d_in,
        width,
        residual_idx,
    };
    record(&inputs, out, op).into_tensor()
}

/// Writes what products are added to; says whether there is something.
fn fill_before(
    out: &mut [f32],
    residual: Option<&Cpu>,
    biases: &[Option<Cpu>],
    maps: &[CpuMap],
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
        out.par_chunks_mut(width * rows_per_task(width)).for_each(|rows| {
            for row in rows.chunks_mut(width) {
                add(&mut row[map.start..map.start + map.d_out], &bias);
            }
        });
    }
    Write::Add
}

impl CpuMap {
    /// Whether the backward pass needs what the map read.
    fn wants_x(&self) -> bool {
        let adapter = self.adapter.as_ref();
        self.weight.is_tracked() || adapter.is_some_and(|adapter| adapter.a.is_tracked())
    }

    /// The weight as `[out, in]`.
    fn matrix<'a>(&self, weight: &'a Stored<'_>) -> WeightMatrix<'a> {
        match self.layout {
            WeightLayout::OutIn => weight.matrix(self.d_out, self.d_in),
            WeightLayout::InOut => weight.matrix(self.d_in, self.d_out).transposed(),
        }
    }

    /// Whether the product of `n` rows is that of decoding. Training keeps to one way of rounding,
    /// whatever the size of its batches.
    fn suits_few_rows(&self, n: usize) -> bool {
        matches!(self.weight, Cpu::Constant(_))
            && self.layout == WeightLayout::OutIn
            && n <= few_rows::MAX_ROWS
            && few_rows::is_supported()
    }

    fn forward(&mut self, x: Matrix, out: &mut [f32], width: usize, write: Write) {
        let n = x.n_rows();
        let weight = Stored::new(self.weight.value());
        if self.suits_few_rows(n) {
            if write == Write::Over {
                out.chunks_mut(width).for_each(|row| row[..self.d_out].fill(0.0));
            }
            few_rows::add_product(out, width, x.values(), &weight, n, self.precision);
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

    /// Adds to the gradient by what the map read (in place of `d_read` if `write` says so), and
    /// hands on the gradients of its parameters.
    fn backward(
        &self,
        d_out: Matrix,
        x: Option<Matrix>,
        d_read: Option<&mut [f32]>,
        write: Write,
        inputs: &mut InputGradients<'_>,
    ) {
        let (n, wants_read, precision) = (d_out.n_rows(), d_read.is_some(), self.precision);
        let adapter = self.adapter.as_ref();
        // scale · dy·B
        let d_narrow = adapter.filter(|adapter| wants_read || inputs.wants(adapter.a_idx));
        let d_narrow = d_narrow.map(|adapter| {
            let b = flex::values(adapter.b.value());
            filled(n * adapter.rank, |out| {
                let b = Matrix::new(&b, self.d_out, adapter.rank);
                let out = MatrixMut::new(out, n, adapter.rank);
                scaled_gemm(out, d_out, b, Write::Over, adapter.scale, precision);
            })
        });
        if let Some(d_read) = d_read {
            let weight = Stored::new(self.weight.value());
            let out = MatrixMut::new(d_read, n, self.d_in);
            weight_gemm(out, d_out, self.matrix(&weight), write, 1.0, precision);
            if let (Some(adapter), Some(d_narrow)) = (adapter, &d_narrow) {
                let a = flex::values(adapter.a.value());
                let a = Matrix::new(&a, adapter.rank, self.d_in);
                let d_narrow = Matrix::new(d_narrow, n, adapter.rank);
                let out = MatrixMut::new(d_read, n, self.d_in);
                gemm(out, d_narrow, a, Write::Add, precision);
            }
        }
        if let Some(x) = x.filter(|_| inputs.wants(self.weight_idx)) {
            let (a, b) = match self.layout {
                WeightLayout::OutIn => (d_out.transposed(), x),
                WeightLayout::InOut => (x.transposed(), d_out),
            };
            add_product(&self.weight, self.weight_idx, (a, b), 1.0, precision, inputs);
        }
        let Some(adapter) = adapter else { return };
        if let (Some(x), Some(d_narrow)) = (x, &d_narrow)
            && inputs.wants(adapter.a_idx)
        {
            let d_narrow = Matrix::new(d_narrow, n, adapter.rank).transposed();
            add_product(&adapter.a, adapter.a_idx, (d_narrow, x), 1.0, precision, inputs);
        }
        if inputs.wants(adapter.a_idx + 1) {
            let narrow = Matrix::new(&adapter.narrow, n, adapter.rank);
            let (idx, d_out) = (adapter.a_idx + 1, d_out.transposed());
            add_product(&adapter.b, idx, (d_out, narrow), adapter.scale, precision, inputs);
        }
    }
}

/// Adds `scale · a · b` to a parameter's gradient.
fn add_product(
    parameter: &Cpu,
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

impl Op for Project {
    fn backward(self, d_out: FlexTensor, inputs: &mut InputGradients<'_>) {
        let Self { read, maps, n, d_in, width, residual_idx } = self;
        let values = flex::values(&d_out);
        let d_out_of = |map: &CpuMap| {
            let from = map.start.min(values.len());
            Matrix::strided(&values[from..], n, map.d_out, width)
        };
        for map in &maps {
            if let Some(idx) = map.bias_idx.filter(|idx| inputs.wants(*idx)) {
                let sums = column_sums(&values, width, map.start, map.d_out);
                inputs.add(idx, flex::tensor(sums, [map.d_out]));
            }
        }
        let wants_read = (0..read.n_inputs()).any(|idx| inputs.wants(idx));
        let x = maps.iter().any(CpuMap::wants_x).then(|| read.values());
        let x = x.as_deref().map(|x| Matrix::new(x, n, d_in));
        let mut write = Write::Over;
        let mut through = |mut d_read: Option<&mut [f32]>, inputs: &mut InputGradients<'_>| {
            for map in &maps {
                map.backward(d_out_of(map), x, d_read.as_deref_mut(), write, inputs);
                write = Write::Add;
            }
        };
        if wants_read {
            let d_read = filled(n * d_in, |d_read| through(Some(d_read), inputs));
            if let CpuRead::Plain(_) = read {
                let shape = d_out.shape();
                inputs.add(0, flex::tensor(d_read, [shape[0], shape[1], d_in]));
            } else {
                read.backward(d_read, inputs);
            }
        } else {
            through(None, inputs);
        }
        drop(values);
        if let Some(idx) = residual_idx {
            inputs.add(idx, d_out);
        }
    }
}

/// Sums of columns, over blocks of rows whose borders don't depend on the threads.
fn column_sums(values: &[f32], width: usize, start: usize, n_columns: usize) -> Vec<f32> {
    let sum_rows = |rows: &[f32]| {
        let mut sums = vec![0.0; n_columns];
        rows.chunks(width).for_each(|row| add(&mut sums, &row[start..start + n_columns]));
        sums
    };
    let parts: Vec<Vec<f32>> = values.par_chunks(BLOCK * width).map(sum_rows).collect();
    let mut sums = vec![0.0; n_columns];
    for part in &parts {
        add(&mut sums, part);
    }
    sums
}

widest! {
    fn add(out: &mut [f32], values: &[f32]) {
        for (out, value) in out.iter_mut().zip(values) {
            *out += value;
        }
    }
}
