//! Sums in a fixed order: over the units of a cube, and over the rows of a matrix.

use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use crate::launch::{Rows, empty, grid};

/// The sum over the cube of one value per unit: a tree in shared memory, so that every size of a plane adds in one order.
#[cube]
pub(crate) fn cube_sum(value: f32, buffer: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    buffer[unit] = value;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0 {
        if unit < half {
            buffer[unit] = buffer[unit] + buffer[unit + half];
        }
        sync_cube();
        half /= 2;
    }
    let sum = buffer[0];
    // The next call writes to the buffer.
    sync_cube();
    sum
}

/// The largest of one value per unit, without NaN unless all are.
#[cube]
pub(crate) fn cube_max(value: f32, buffer: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    buffer[unit] = value;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0 {
        if unit < half {
            buffer[unit] = max(buffer[unit], buffer[unit + half]);
        }
        sync_cube();
        half /= 2;
    }
    let largest = buffer[0];
    sync_cube();
    largest
}

/// Columns of a cube in [`column_sums`], and the rows of units that share them.
const COLUMNS: usize = 32;
const SHARES: usize = 8;

/// The sum of the rows of `x`, `[.., d]` → `[d]`.
pub(crate) fn column_sums(x: CubeTensor) -> CubeTensor {
    let Rows { n, width, .. } = Rows::of(&x);
    let sums = empty(&x, [width], DType::F32);
    if width == 0 {
        return sums;
    }
    let cubes = width.div_ceil(COLUMNS);
    let client = x.client.clone();
    #[expect(unsafe_code, reason = "burn's launches check no bounds")]
    // SAFETY: rows below n and columns below width are read, columns below width written.
    unsafe {
        column_sums_kernel::launch_unchecked(
            &client,
            grid(cubes),
            CubeDim::new_2d(COLUMNS as u32, SHARES as u32),
            x.into_tensor_arg(),
            sums.clone().into_tensor_arg(),
            n as u32,
            width as u32,
            COLUMNS,
            SHARES,
        );
    }
    sums
}

/// A unit adds every `shares`-th row of its column; the shares are added in order.
#[cube(launch_unchecked)]
fn column_sums_kernel(
    x: &Tensor<f32>,
    sums: &mut Tensor<f32>,
    n: u32,
    width: u32,
    #[comptime] columns: usize,
    #[comptime] shares: usize,
) {
    let mut buffer = Shared::<[f32]>::new_slice(comptime!(columns * shares));
    let (n, width) = (n as usize, width as usize);
    let (local, share) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    let column = CUBE_POS * columns + local;
    let mut sum = 0.0f32;
    if column < width {
        let mut row = share;
        while row < n {
            sum += x[row * width + column];
            row += shares;
        }
    }
    buffer[share * columns + local] = sum;
    sync_cube();
    if share == 0 && column < width {
        let mut total = 0.0f32;
        #[unroll]
        for i in 0..shares {
            total += buffer[i * columns + local];
        }
        sums[column] = total;
    }
}
