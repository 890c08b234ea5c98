//! Launches: grids, sizes of cubes, output tensors.

use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::tensor::{DType, IntDType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

/// Limit of a grid's second and third dimension on CUDA, and of all three on other devices.
const MAX_GRID: usize = 65_535;

/// Units of a cube that computes one value per unit.
pub(crate) const ELEMENT_UNITS: usize = 256;

/// A grid of at least `n` cubes. Kernels compare `CUBE_POS` with `n`, because the grid may be larger.
pub(crate) fn grid(n: usize) -> CubeCount {
    let rows = n.div_ceil(MAX_GRID).max(1);
    CubeCount::Static(n.div_ceil(rows).max(1) as u32, rows as u32, 1)
}

/// The grid and the cube of `n` units, each of which computes one value.
pub(crate) fn per_element(n: usize) -> (CubeCount, CubeDim) {
    (grid(n.div_ceil(ELEMENT_UNITS)), CubeDim::new_1d(ELEMENT_UNITS as u32))
}

/// Units of a cube for rows of `width` values: a power of two of at most 256, about four values for each unit.
pub(crate) fn units_for(width: usize) -> usize {
    width.div_ceil(4).next_power_of_two().clamp(32, 256)
}

/// A new tensor on the device of `like`, with undefined values.
pub(crate) fn empty(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), dtype)
}

/// A new contiguous tensor of zeros in f32 on the device of `like`. It is made flat, because cubecl may leave gaps between the
/// rows of a tensor of several dimensions.
pub(crate) fn zeros(like: &CubeTensor, shape: impl Into<Shape>) -> CubeTensor {
    let shape = shape.into();
    let flat = Shape::from([shape.num_elements()]);
    CubeBackend::float_reshape(
        CubeBackend::float_zeros(flat, &like.device, DType::F32.into()),
        shape,
    )
}

/// Indices as contiguous i32.
pub(crate) fn as_i32(x: CubeTensor) -> CubeTensor {
    into_contiguous(if x.dtype == DType::I32 { x } else { CubeBackend::int_cast(x, IntDType::I32) })
}

/// A tensor as rows of its last dimension.
pub(crate) struct Rows {
    /// The other dimensions.
    pub(crate) lead: Vec<usize>,
    pub(crate) n: usize,
    pub(crate) width: usize,
}

impl Rows {
    pub(crate) fn of(x: &CubeTensor) -> Self {
        let mut lead: Vec<usize> = x.meta.shape().iter().copied().collect();
        let width = lead.pop().unwrap_or(1);
        let n = if width == 0 { 0 } else { lead.iter().product() };
        Self { lead, n, width }
    }

    /// The same rows with another width.
    pub(crate) fn with_width(&self, width: usize) -> Vec<usize> {
        let mut dims = self.lead.clone();
        dims.push(width);
        dims
    }
}
