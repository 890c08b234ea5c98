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

/// New flat f32 tensors of these lengths, one after the other in one buffer, with undefined values. Each starts where the
/// device's memory is aligned.
pub(crate) fn side_by_side(like: &CubeTensor, lengths: &[usize]) -> Vec<CubeTensor> {
    let bytes_of = |n: usize| (n * DType::F32.size()) as u64;
    let alignment = like.client.properties().memory.alignment.max(1);
    let starts: Vec<u64> = lengths
        .iter()
        .scan(0, |end, n| {
            let start = *end;
            *end += bytes_of(*n).next_multiple_of(alignment);
            Some(start)
        })
        .collect();
    let total: u64 = lengths.iter().map(|n| bytes_of(*n).next_multiple_of(alignment)).sum();
    if total == 0 {
        return lengths.iter().map(|n| empty(like, [*n], DType::F32)).collect();
    }
    let buffer = empty(like, [total as usize / DType::F32.size()], DType::F32);
    let part = |(n, start): (&usize, u64)| {
        let end = total - start - bytes_of(*n);
        let handle = buffer.handle.clone().offset_start(start).offset_end(end);
        let (client, device) = (buffer.client.clone(), buffer.device.clone());
        CubeTensor::new_contiguous(client, device, Shape::from([*n]), handle, DType::F32)
    };
    lengths.iter().zip(starts).map(part).collect()
}

/// Contiguous tensors of one type, if each starts where the one before it ends, as one tensor of this shape.
pub(crate) fn joined(tensors: &[CubeTensor], shape: impl Into<Shape>) -> Option<CubeTensor> {
    let (first, last) = tensors.first().zip(tensors.last())?;
    let start = |x: &CubeTensor| x.handle.offset_start.unwrap_or(0);
    let follows = |pair: &[CubeTensor]| match pair {
        [a, b] => {
            let bytes = (a.meta.shape().num_elements() * a.dtype.size()) as u64;
            a.handle.memory.descriptor() == b.handle.memory.descriptor()
                && start(a) + bytes == start(b)
        }
        _ => false,
    };
    if !tensors.windows(2).all(follows) {
        return None;
    }
    let mut handle = first.handle.clone();
    handle.offset_end = last.handle.offset_end;
    let (client, device) = (first.client.clone(), first.device.clone());
    Some(CubeTensor::new_contiguous(client, device, shape.into(), handle, first.dtype))
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
