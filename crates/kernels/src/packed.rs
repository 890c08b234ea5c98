//! Weights in 4 or 8 bits: blocks of codes, each block with the scale of its largest value, as bitsandbytes stores them.
//!
//! A product reads a packed weight after unpacking it to f32. In training, the backward pass unpacks it again, so the graph
//! keeps the codes alone.

use std::sync::Arc;

use burn::tensor::{DType, Int, Tensor, TensorData};
use kernels_cpu::{CpuTensor, InputGradients, Op, WeightLayout, record};

use crate::device::is_cpu;
use crate::dispatch::{KernelSet, Select};
use crate::linear::{linear, linear_io};

/// Elements of a block of a 4-bit weight.
const BLOCK: usize = 64;
/// Scales of a block that shares a scale of its own.
const NESTED_BLOCK: usize = 256;
/// The largest code of signed integers.
const INT8_MAX: f32 = 127.0;

/// The 16 values of 4-bit NormalFloat: quantiles of a normal distribution, scaled to −1..1, among them an exact zero
/// (Dettmers et al. 2023, "QLoRA", appendix E).
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Code that [`pack`] uses for a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackedFormat {
    /// 8 bits: the nearest multiple of a 127th of the row's largest absolute value (Dettmers et al. 2022, "LLM.int8()").
    Int8,
    /// 4 bits: the nearest of 16 values of a normal distribution, in blocks of 64 whose scales are 8-bit codes themselves
    /// (Dettmers et al. 2023, "QLoRA", section 3).
    Nf4,
}

/// The values of codes, before scaling.
#[derive(Clone, Debug, PartialEq)]
pub enum CodeTable {
    /// A signed byte in units of 1/127.
    Int8,
    /// Two codes in a byte, the first in the upper half.
    FourBit([f32; 16]),
}

/// The scales of a packed weight's blocks.
#[derive(Clone, Debug, PartialEq)]
pub enum BlockScales {
    /// One number a block.
    Plain(Arc<[f32]>),
    /// A code a block.
    Nested(Arc<NestedScales>),
}

/// Scales that are packed in blocks of their own: `table[code] · scale + offset`.
#[derive(Clone, Debug, PartialEq)]
pub struct NestedScales {
    /// One code a block of the weight.
    pub codes: Vec<u8>,
    /// One number for each `block` codes.
    pub scales: Vec<f32>,
    /// Codes that share a scale.
    pub block: usize,
    /// The mean of the scales.
    pub offset: f32,
    /// The values of the 256 codes.
    pub table: Vec<f32>,
}

/// Values needed to read codes as a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedLayout {
    /// The shape of the weight.
    pub dims: [usize; 2],
    /// The values of codes.
    pub table: CodeTable,
    /// Elements that share a scale, in row-major order; the last block may be shorter.
    pub block: usize,
    /// The scales.
    pub scales: BlockScales,
}

impl PackedLayout {
    /// Number of bytes of the codes.
    pub fn n_code_bytes(&self) -> usize {
        let n = self.dims[0] * self.dims[1];
        match self.table {
            CodeTable::Int8 => n,
            CodeTable::FourBit(_) => n.div_ceil(2),
        }
    }

    /// Number of blocks.
    pub fn n_blocks(&self) -> usize {
        (self.dims[0] * self.dims[1]).div_ceil(self.block.max(1))
    }
}

impl BlockScales {
    /// The scale of each block.
    pub fn values(&self) -> Vec<f32> {
        match self {
            Self::Plain(scales) => scales.to_vec(),
            Self::Nested(nested) => {
                let NestedScales { codes, scales, block, offset, table } = nested.as_ref();
                let blocks = codes.chunks((*block).max(1)).zip(scales);
                let value = |code: &u8| table.get(usize::from(*code)).copied().unwrap_or(f32::NAN);
                blocks
                    .flat_map(|(codes, scale)| codes.iter().map(move |c| value(c) * scale + offset))
                    .collect()
            }
        }
    }
}

/// Packs a weight that is off autodiff.
pub fn pack(weight: Tensor<2>, format: PackedFormat) -> (Tensor<1, Int>, PackedLayout) {
    let (dims, device) = (weight.dims(), weight.device());
    let values: Vec<f32> = weight.into_data().convert::<f32>().iter::<f32>().collect();
    let block = match format {
        PackedFormat::Int8 => dims[1],
        PackedFormat::Nf4 => BLOCK,
    };
    let largest = |block: &[f32]| block.iter().fold(0.0, |max: f32, value| max.max(value.abs()));
    let scales: Vec<f32> = values.chunks(block.max(1)).map(largest).collect();
    let scaled = values.chunks(block.max(1)).zip(&scales).flat_map(|(block, scale)| {
        let inverse = if *scale > 0.0 { 1.0 / scale } else { 0.0 };
        block.iter().map(move |value| value * inverse)
    });
    match format {
        PackedFormat::Int8 => {
            let code = |value: f32| ((value * INT8_MAX).round() as i8).cast_unsigned();
            let codes: Vec<u8> = scaled.map(code).collect();
            let scales = BlockScales::Plain(scales.into());
            let layout = PackedLayout { dims, table: CodeTable::Int8, block, scales };
            (codes_tensor(codes, &layout, &device), layout)
        }
        PackedFormat::Nf4 => {
            let codes: Vec<u8> = scaled.map(nearest_nf4).collect();
            let byte = |pair: &[u8]| pair[0] << 4 | pair.get(1).unwrap_or(&7);
            let bytes: Vec<u8> = codes.chunks(2).map(byte).collect();
            let scales = BlockScales::Nested(Arc::new(nested(&scales)));
            let layout = PackedLayout { dims, table: CodeTable::FourBit(NF4), block, scales };
            (codes_tensor(bytes, &layout, &device), layout)
        }
    }
}

/// Codes as a file has them, on a device.
///
/// # Panics
/// If they are not as many as the layout says.
pub fn codes_tensor(
    bytes: Vec<u8>,
    layout: &PackedLayout,
    device: &burn::tensor::Device,
) -> Tensor<1, Int> {
    let n = bytes.len();
    assert_eq!(n, layout.n_code_bytes(), "codes of a weight {:?}", layout.dims);
    if !is_cpu(device) && !device.supports_dtype(DType::U8) {
        return words(&bytes, device);
    }
    match layout.table {
        CodeTable::Int8 => {
            let codes: Vec<i8> = bytes.into_iter().map(u8::cast_signed).collect();
            Tensor::from_data(TensorData::new(codes, [n]), (device, DType::I8))
        }
        CodeTable::FourBit(_) => {
            Tensor::from_data(TensorData::new(bytes, [n]), (device, DType::U8))
        }
    }
}

/// Four codes in each number, the first one in its lowest bits, for devices without numbers of 8 bits: WGSL has none.
fn words(bytes: &[u8], device: &burn::tensor::Device) -> Tensor<1, Int> {
    let word = |bytes: &[u8]| {
        bytes.iter().rev().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)).cast_signed()
    };
    let words: Vec<i32> = bytes.chunks(4).map(word).collect();
    let n = words.len();
    Tensor::from_data(TensorData::new(words, [n]), (device, DType::I32))
}

/// The codes of [`words`], from 0 to 255, and from -128 to 127 if `signed`.
fn codes_of_words(words: Tensor<1, Int>, n_bytes: usize, signed: bool) -> Tensor<1, Int> {
    let n = words.dims()[0];
    let byte = |i: i32| words.clone().bitwise_right_shift_scalar(8 * i).bitwise_and_scalar(255);
    let bytes: Tensor<2, Int> = Tensor::stack((0..4).map(byte).collect(), 1);
    let bytes = bytes.reshape([4 * n]).slice(0..n_bytes);
    if signed { bytes.bitwise_xor_scalar(128).sub_scalar(128) } else { bytes }
}

fn nearest_nf4(value: f32) -> u8 {
    // The borders are halfway between neighbours.
    let is_above = |pair: &&[f32]| value > f32::midpoint(pair[0], pair[1]);
    NF4.windows(2).take_while(is_above).count() as u8
}

/// Packs scales, less their mean, in blocks of dynamic 8-bit codes ("QLoRA", section 3, double quantization).
fn nested(scales: &[f32]) -> NestedScales {
    let mean = scales.iter().map(|x| f64::from(*x)).sum::<f64>() / scales.len().max(1) as f64;
    let offset = mean as f32;
    let table = dynamic_code(true);
    let mut codes = Vec::with_capacity(scales.len());
    let mut largest = Vec::new();
    for block in scales.chunks(NESTED_BLOCK) {
        let max = block.iter().fold(0.0, |max: f32, x| max.max((x - offset).abs()));
        let divisor = if max > 0.0 { max } else { 1.0 };
        codes.extend(block.iter().map(|x| nearest(&table, (x - offset) / divisor)));
        largest.push(max);
    }
    NestedScales { codes, scales: largest, block: NESTED_BLOCK, offset, table: table.to_vec() }
}

/// The index of the nearest value of a rising table.
fn nearest(table: &[f32; 256], x: f32) -> u8 {
    let above = table.partition_point(|value| *value < x).min(255);
    let below = above.saturating_sub(1);
    let is_below_nearer = (x - table[below]).abs() <= (table[above] - x).abs();
    (if is_below_nearer { below } else { above }) as u8
}

/// The decades that a dynamic code covers, down from 1.
const N_DECADES: i32 = 7;

/// The 256 values of a dynamic 8-bit code in rising order, from −1 or 0 to 1: leading zeros are the decimal exponent, the
/// remaining bits a linear fraction (Dettmers 2016, section 2.2).
pub fn dynamic_code(is_signed: bool) -> [f32; 256] {
    let mut all = vec![0.0_f64, 1.0];
    for decade in 0..N_DECADES {
        let n_steps = 1 << (decade + i32::from(!is_signed));
        let largest = 10.0_f64.powi(decade - (N_DECADES - 1));
        for step in 0..n_steps {
            // Centres of equal parts of 0.1 to 1.
            let centre = 0.1 + 0.9 * (f64::from(step) + 0.5) / f64::from(n_steps);
            all.push(largest * centre);
            if is_signed {
                all.push(-largest * centre);
            }
        }
    }
    all.sort_by(f64::total_cmp);
    let mut values = [0.0; 256];
    values.iter_mut().zip(&all).for_each(|(value, exact)| *value = *exact as f32);
    values
}

/// The values of codes in f32, off autodiff.
pub fn unpack(codes: Tensor<1, Int>, layout: &PackedLayout) -> Tensor<2> {
    if is_cpu(&codes.device()) { host_unpack(codes, layout) } else { generic_unpack(codes, layout) }
}

fn host_unpack(codes: Tensor<1, Int>, layout: &PackedLayout) -> Tensor<2> {
    let device = codes.device();
    let n = layout.dims[0] * layout.dims[1];
    let data = codes.into_data();
    let (bytes, scales) = (data.as_bytes(), layout.scales.values());
    let mut values = vec![0.0_f32; n];
    match &layout.table {
        CodeTable::Int8 => {
            let block = layout.block.max(1);
            let blocks = values.chunks_mut(block).zip(bytes.chunks(block)).zip(&scales);
            for ((out, codes), scale) in blocks {
                let step = scale / INT8_MAX;
                for (out, code) in out.iter_mut().zip(codes) {
                    *out = f32::from(code.cast_signed()) * step;
                }
            }
        }
        CodeTable::FourBit(table) => {
            // Block by block with the scaled table; a block may begin in the middle of a byte.
            for (idx, (out, scale)) in
                values.chunks_mut(layout.block.max(1)).zip(&scales).enumerate()
            {
                let scaled = table.map(|value| value * scale);
                let first = idx * layout.block;
                if first.is_multiple_of(2) {
                    for (out, byte) in out.chunks_mut(2).zip(&bytes[first / 2..]) {
                        out[0] = scaled[usize::from(byte >> 4)];
                        if let Some(second) = out.get_mut(1) {
                            *second = scaled[usize::from(byte & 15)];
                        }
                    }
                } else {
                    for (position, out) in (first..).zip(out.iter_mut()) {
                        let byte = bytes[position / 2];
                        let code = if position.is_multiple_of(2) { byte >> 4 } else { byte & 15 };
                        *out = scaled[usize::from(code)];
                    }
                }
            }
        }
    }
    Tensor::from_data(TensorData::new(values, layout.dims), &device)
}

fn generic_unpack(codes: Tensor<1, Int>, layout: &PackedLayout) -> Tensor<2> {
    let device = codes.device();
    let n = layout.dims[0] * layout.dims[1];
    let n_bytes = layout.n_code_bytes();
    let codes = if codes.dtype() == DType::I32 {
        codes_of_words(codes, n_bytes, matches!(layout.table, CodeTable::Int8))
    } else {
        codes.cast(DType::I32)
    };
    let values: Tensor<1> = match &layout.table {
        CodeTable::Int8 => codes.float().div_scalar(INT8_MAX),
        CodeTable::FourBit(table) => {
            let table = Tensor::<1>::from_data(table.as_slice(), &device);
            let upper = codes.clone().bitwise_right_shift_scalar(4);
            let lower = codes.bitwise_and_scalar(15);
            let pairs: Tensor<2, Int> = Tensor::stack(vec![upper, lower], 1);
            table.select(0, pairs.reshape([2 * n_bytes])).slice(0..n)
        }
    };
    let n_blocks = layout.n_blocks();
    let scales = Tensor::<1>::from_data(layout.scales.values().as_slice(), &device);
    let scales = scales.reshape([n_blocks, 1]).expand([n_blocks, layout.block]);
    let scales = scales.reshape([n_blocks * layout.block]).slice(0..n);
    (values * scales).reshape(layout.dims)
}

/// `x · weightᵀ` for a packed weight `[out, in]`, `x · weight` for one of `[in, out]`: `[.., in]` → `[.., out]`. The weight
/// gets no gradient; the graph keeps its codes.
pub fn packed_linear<const D: usize>(
    x: Tensor<D>,
    codes: &Tensor<1, Int>,
    layout: &PackedLayout,
    axes: WeightLayout,
) -> Tensor<D> {
    let mut dims = x.dims();
    let n_rows = dims[..D - 1].iter().product::<usize>();
    let rows_ni: Tensor<2> = x.reshape([n_rows, dims[D - 1]]);
    let rows_no = match Select::new().float(&rows_ni).kernel_set() {
        KernelSet::Cpu if rows_ni.is_autodiff() => {
            let weight = unpack(codes.clone(), layout);
            let out = product(rows_ni.clone().inner(), weight, axes);
            let out = CpuTensor::new(out).into_value();
            let op = || PackedProduct { codes: codes.clone(), layout: layout.clone(), axes };
            record(&[&CpuTensor::new(rows_ni)], out, op).into_tensor()
        }
        KernelSet::Cpu | KernelSet::Generic => {
            product(rows_ni, unpack(codes.clone(), layout), axes)
        }
    };
    dims[D - 1] = rows_no.dims()[1];
    rows_no.reshape(dims)
}

fn product(x: Tensor<2>, weight: Tensor<2>, axes: WeightLayout) -> Tensor<2> {
    match axes {
        WeightLayout::OutIn => linear(x, weight, None),
        WeightLayout::InOut => linear_io(x, weight, None),
    }
}

/// The backward pass of a product with a packed weight.
#[derive(Clone, Debug)]
struct PackedProduct {
    codes: Tensor<1, Int>,
    layout: PackedLayout,
    axes: WeightLayout,
}

impl Op for PackedProduct {
    fn backward(self, d_out: burn_flex::FlexTensor, inputs: &mut InputGradients<'_>) {
        let d_out_no: Tensor<2> = CpuTensor::Constant(d_out).into_tensor();
        let weight = unpack(self.codes, &self.layout);
        let transposed = match self.axes {
            WeightLayout::OutIn => WeightLayout::InOut,
            WeightLayout::InOut => WeightLayout::OutIn,
        };
        let d_x_ni = product(d_out_no, weight, transposed);
        inputs.add(0, CpuTensor::new(d_x_ni).into_value());
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;

    fn wave(dims: [usize; 2]) -> Tensor<2> {
        let values: Vec<f32> =
            (0..dims[0] * dims[1]).map(|i| (i as f32 * 0.37).sin() * 2.0).collect();
        Tensor::from_data(TensorData::new(values, dims), &Device::flex())
    }

    fn values<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
        crate::with_host_values(x, <[f32]>::to_vec)
    }

    #[test]
    fn both_ways_of_unpacking_agree() {
        // Odd numbers of elements; blocks that begin in the middle of a byte.
        for (dims, block) in [([5, 37], 64), ([7, 9], 5), ([4, 64], 64), ([1, 1], 64)] {
            for format in [PackedFormat::Int8, PackedFormat::Nf4] {
                let (codes, mut layout) = pack(wave(dims), format);
                if format == PackedFormat::Nf4 {
                    layout.block = block;
                    let scales = (0..layout.n_blocks()).map(|i| 0.5 + i as f32).collect();
                    layout.scales = BlockScales::Plain(scales);
                }
                let host = values(&host_unpack(codes.clone(), &layout));
                let bytes = words(codes.clone().into_data().as_bytes(), &Device::flex());
                let generic = values(&generic_unpack(codes, &layout));
                assert_eq!(values(&generic_unpack(bytes, &layout)), generic);
                for (a, b) in host.iter().zip(&generic) {
                    assert!((a - b).abs() <= 1e-6 * a.abs().max(1.0), "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn gradients_pass_through_a_packed_weight() {
        let device = Device::flex().autodiff();
        for (axes, dims) in [(WeightLayout::OutIn, [5, 7]), (WeightLayout::InOut, [7, 5])] {
            for format in [PackedFormat::Int8, PackedFormat::Nf4] {
                let (codes, layout) = pack(wave(dims), format);
                let x = || {
                    let x = wave([6, 7]).into_data();
                    Tensor::<2>::from_data(x, &device).set_require_grad(true)
                };
                let upstream = Tensor::<2>::from_data(wave([6, 5]).into_data(), &device);
                let (x1, x2) = (x(), x());
                let got = packed_linear(x1.clone(), &codes, &layout, axes);
                let want = product(x2.clone(), unpack(codes, &layout), axes);
                assert_eq!(values(&got), values(&want));
                let d1 = x1.grad(&(got * upstream.clone()).sum().backward()).expect("one");
                let d2 = x2.grad(&(want * upstream).sum().backward()).expect("one");
                for (a, b) in values(&d1).iter().zip(values(&d2)) {
                    assert!((a - b).abs() < 1e-5, "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn scales_of_scales_are_near_the_scales() {
        let scales: Vec<f32> = (0..600).map(|i| 0.3 + (i as f32 * 0.9).sin() * 0.1).collect();
        let nested = nested(&scales);
        assert_eq!((nested.codes.len(), nested.scales.len()), (600, 3));
        let got = BlockScales::Nested(Arc::new(nested)).values();
        for (got, want) in got.iter().zip(&scales) {
            assert!((got - want).abs() < 1.5e-3, "{got} {want}");
        }
        let equal = BlockScales::Nested(Arc::new(super::nested(&[0.25; 5]))).values();
        assert_eq!(equal, [0.25; 5]);
    }
}
