//! Merges the values of attention whose keys were divided among cubes.
//!
//! For p parts of n rows of width k: 4·n·(p·(k + 1) + k) bytes and 3·p·n·k operations, limited by memory and, for the few rows
//! that are divided, by the launch.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::parts::{HIDDEN, HIDDEN_BOUND};
use crate::launch::{ELEMENT_UNITS, empty, per_element};

/// The value of the parts' queries `[parts, rows · k]`, `[rows · k]`, from their log-sum-exps `[parts, rows]`.
pub(super) fn merge(parts: CubeTensor, lse: CubeTensor, rows: usize, width: usize) -> CubeTensor {
    let n_parts = parts.shape()[0];
    let out = empty(&parts, [rows * width], DType::F32);
    let (cubes, units) = per_element(rows * width);
    #[expect(unsafe_code, reason = "burn's launches check no bounds")]
    // SAFETY: values below their number, of tensors of these shapes.
    unsafe {
        merge_kernel::launch_unchecked(
            &parts.client.clone(),
            cubes,
            units,
            parts.into_tensor_arg(),
            lse.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            n_parts as u32,
            rows as u32,
            width as u32,
            ELEMENT_UNITS,
        );
    }
    out
}

/// One unit per value: the parts' values, weighted by their shares of the softmax's sum.
#[cube(launch_unchecked)]
fn merge_kernel(
    parts: &Tensor<f32>,
    lse: &Tensor<f32>,
    out: &mut Tensor<f32>,
    n_parts: u32,
    rows: u32,
    width: u32,
    #[comptime] units: usize,
) {
    let (n_parts, rows, width) = (n_parts as usize, rows as usize, width as usize);
    let at = CUBE_POS * units + UNIT_POS as usize;
    if at < rows * width {
        let row = at / width;
        let mut top = f32::new(HIDDEN);
        for part in 0..n_parts {
            top = max(top, lse[part * lse.stride(0) + row]);
        }
        let mut total = 0.0f32;
        let mut sum = 0.0f32;
        for part in 0..n_parts {
            let size = lse[part * lse.stride(0) + row];
            let hidden = size < f32::new(HIDDEN_BOUND);
            let weight = select(hidden, 0.0f32, (size - top).exp());
            total += weight;
            sum += weight * parts[part * parts.stride(0) + at];
        }
        let empty = total == 0.0f32;
        out[at] = select(empty, 0.0f32, sum / total);
    }
}
