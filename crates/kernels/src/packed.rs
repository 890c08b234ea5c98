//! Weights in 4 or 8 bits: blocks of small integers, each block with the scale of its largest value.
//!
//! The bodies are tensor operations: a product reads a packed weight after unpacking it to f32.

use burn::tensor::{DType, Int, Tensor, TensorData};

/// Elements of a block, in row-major order.
const BLOCK: usize = 64;

/// The largest code of a format of signed integers.
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

/// How the elements of a block are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackedFormat {
    /// 8 bits: the nearest multiple of a 127th of the block's largest absolute value.
    Int8,
    /// 4 bits: the nearest of 16 values of a normal distribution, two codes in a byte, the first in the upper half.
    Nf4,
}

/// Codes, and the largest absolute value of each block `[n / 64]`, of a weight off autodiff.
///
/// The last block is filled up with zeros.
pub fn pack(weight: Tensor<2>, format: PackedFormat) -> (Tensor<1, Int>, Tensor<1>) {
    let device = weight.device();
    let mut values: Vec<f32> = weight.into_data().convert::<f32>().iter::<f32>().collect();
    values.resize(values.len().next_multiple_of(BLOCK), 0.0);
    let largest = |block: &[f32]| block.iter().fold(0.0, |max: f32, value| max.max(value.abs()));
    let scales: Vec<f32> = values.chunks(BLOCK).map(largest).collect();
    let scaled = values.chunks(BLOCK).zip(&scales).flat_map(|(block, scale)| {
        let inverse = if *scale > 0.0 { 1.0 / scale } else { 0.0 };
        block.iter().map(move |value| value * inverse)
    });
    let (codes, dtype) = match format {
        PackedFormat::Int8 => {
            let codes: Vec<i8> = scaled.map(|value| (value * INT8_MAX).round() as i8).collect();
            let n = codes.len();
            (TensorData::new(codes, [n]), DType::I8)
        }
        PackedFormat::Nf4 => {
            let codes: Vec<u8> = scaled.map(nearest_nf4).collect();
            let bytes: Vec<u8> = codes.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
            let n = bytes.len();
            (TensorData::new(bytes, [n]), DType::U8)
        }
    };
    let codes = Tensor::from_data(codes, (&device, dtype));
    (codes, Tensor::from_data(scales.as_slice(), &device))
}

fn nearest_nf4(value: f32) -> u8 {
    // The borders are halfway between neighbours.
    let is_above = |pair: &&[f32]| value > f32::midpoint(pair[0], pair[1]);
    NF4.windows(2).take_while(is_above).count() as u8
}

/// The f32 values of codes and scales that [`pack`] made of a weight of shape `dims`.
pub fn unpack(
    codes: Tensor<1, Int>,
    scales: Tensor<1>,
    format: PackedFormat,
    dims: [usize; 2],
) -> Tensor<2> {
    let device = codes.device();
    let n_blocks = scales.dims()[0];
    let codes = codes.cast(DType::I32);
    let scaled: Tensor<2> = match format {
        PackedFormat::Int8 => codes.float().div_scalar(INT8_MAX).reshape([n_blocks, BLOCK]),
        PackedFormat::Nf4 => {
            let table = Tensor::<1>::from_data(NF4.as_slice(), &device);
            let upper = codes.clone().bitwise_right_shift_scalar(4);
            let lower = codes.bitwise_and_scalar(15);
            let pairs: Tensor<2, Int> = Tensor::stack(vec![upper, lower], 1);
            table.select(0, pairs.reshape([n_blocks * BLOCK])).reshape([n_blocks, BLOCK])
        }
    };
    let values = scaled * scales.reshape([n_blocks, 1]);
    values.reshape([n_blocks * BLOCK]).slice(0..dims[0] * dims[1]).reshape(dims)
}
