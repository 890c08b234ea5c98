//! What launches have in common: grids, sizes of cubes, output tensors.

use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

/// Limit of a grid's second and third dimension on CUDA, and of all three on other devices.
const MAX_GRID: usize = 65_535;

/// A grid of at least `n` cubes. Kernels compare `CUBE_POS` with `n`, because the grid may be larger.
pub(crate) fn grid(n: usize) -> CubeCount {
    let rows = n.div_ceil(MAX_GRID).max(1);
    CubeCount::Static(n.div_ceil(rows).max(1) as u32, rows as u32, 1)
}

/// Units of a cube for rows of `width` values: a power of two of at most 256, about four values for each unit.
pub(crate) fn units_for(width: usize) -> usize {
    width.div_ceil(4).next_power_of_two().clamp(32, 256)
}

/// A new tensor on the device of `like`.
pub(crate) fn empty(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), dtype)
}
