//! LayerNorm over the last dimension: `y = (x - mean) · rstd · weight + bias` with `rstd = 1 / sqrt(variance + eps)` and the
//! biased variance (Ba et al. 2016), and its gradients.
//!
//! For n rows of d values in f32 the forward pass moves 8·n·d bytes, reading each row three times, mostly from the cache; the
//! backward pass 12 to 20·n·d. Both are limited by memory, as [RMSNorm](crate::rms_norm) is.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use crate::launch::{Rows, empty, grid, units_for};
use crate::sums::{column_sums, cube_sum};

/// Rows whose share of the gradients of weight and bias one cube sums.
const ROWS_PER_CUBE: usize = 16;

/// The result, and mean and `rstd` of each row.
#[derive(Clone, Debug)]
pub struct Normed {
    /// In the shape of `x`.
    pub y: CubeTensor,
    /// In the shape of `x` without its last dimension.
    pub mean: CubeTensor,
    /// The same.
    pub rstd: CubeTensor,
}

/// LayerNorm of `x`; `weight` and `bias` have the size of its last dimension.
pub fn forward(x: CubeTensor, weight: CubeTensor, bias: CubeTensor, eps: f32) -> Normed {
    let [x, weight, bias] = [x, weight, bias].map(into_contiguous);
    let Rows { lead, n, width } = Rows::of(&x);
    let y = empty(&x, x.shape(), DType::F32);
    let (mean, rstd) = (empty(&x, lead.clone(), DType::F32), empty(&x, lead, DType::F32));
    let normed = Normed { y, mean, rstd };
    if n == 0 {
        return normed;
    }
    let (client, units) = (x.client.clone(), units_for(width));
    #[expect(unsafe_code, reason = "burn's launches check no bounds")]
    // SAFETY: a cube touches one row below n, a unit columns below width, of tensors of these shapes.
    unsafe {
        layer_norm_kernel::launch_unchecked(
            &client,
            grid(n),
            CubeDim::new_1d(units as u32),
            x.into_tensor_arg(),
            weight.into_tensor_arg(),
            bias.into_tensor_arg(),
            normed.y.clone().into_tensor_arg(),
            normed.mean.clone().into_tensor_arg(),
            normed.rstd.clone().into_tensor_arg(),
            eps,
            n as u32,
            width as u32,
            units,
        );
    }
    normed
}

/// Gradients of `x`, `weight` and `bias`, from the forward pass's operands and statistics and the gradient of its result.
pub fn backward(
    x: CubeTensor,
    weight: CubeTensor,
    [mean, rstd]: [CubeTensor; 2],
    dy: CubeTensor,
) -> [CubeTensor; 3] {
    let [x, weight, mean, rstd, dy] = [x, weight, mean, rstd, dy].map(into_contiguous);
    let Rows { n, width, .. } = Rows::of(&x);
    let blocks = n.div_ceil(ROWS_PER_CUBE).max(1);
    let dx = empty(&x, x.shape(), DType::F32);
    // The shares of weight and bias side by side, so that one kernel sums both.
    let partial = empty(&x, [blocks, 2 * width], DType::F32);
    let (client, units) = (x.client.clone(), units_for(width));
    #[expect(unsafe_code, reason = "burn's launches check no bounds")]
    // SAFETY: a cube touches rows below n of one block, a unit columns below width, of tensors of these shapes.
    unsafe {
        layer_norm_backward_kernel::launch_unchecked(
            &client,
            grid(blocks),
            CubeDim::new_1d(units as u32),
            x.into_tensor_arg(),
            weight.into_tensor_arg(),
            mean.into_tensor_arg(),
            rstd.into_tensor_arg(),
            dy.into_tensor_arg(),
            dx.clone().into_tensor_arg(),
            partial.clone().into_tensor_arg(),
            blocks as u32,
            n as u32,
            width as u32,
            ROWS_PER_CUBE,
            units,
        );
    }
    let sums = column_sums(partial);
    let part = |start: usize| {
        let range = start..start + width;
        burn_cubecl::kernel::slice(sums.clone(), std::slice::from_ref(&range))
    };
    [dx, part(0), part(width)]
}

/// One cube per row; the variance is computed from differences from the mean.
#[cube(launch_unchecked)]
fn layer_norm_kernel(
    x: &Tensor<f32>,
    weight: &Tensor<f32>,
    bias: &Tensor<f32>,
    y: &mut Tensor<f32>,
    means: &mut Tensor<f32>,
    rstds: &mut Tensor<f32>,
    eps: f32,
    n: u32,
    width: u32,
    #[comptime] units: usize,
) {
    let mut buffer = Shared::<[f32]>::new_slice(units);
    let width = width as usize;
    let row = CUBE_POS;
    // The same for all units of a cube, so barriers below are reached by all or none.
    if row < n as usize {
        let start = row * width;
        let mut sum = 0.0f32;
        let mut column = UNIT_POS as usize;
        while column < width {
            sum += x[start + column];
            column += units;
        }
        let mean = cube_sum(sum, &mut buffer, units) / f32::cast_from(width);
        let mut squares = 0.0f32;
        let mut column = UNIT_POS as usize;
        while column < width {
            let distance = x[start + column] - mean;
            squares += distance * distance;
            column += units;
        }
        let variance = cube_sum(squares, &mut buffer, units) / f32::cast_from(width);
        let rstd = 1.0f32 / (variance + eps).sqrt();
        if UNIT_POS == 0 {
            means[row] = mean;
            rstds[row] = rstd;
        }
        let mut column = UNIT_POS as usize;
        while column < width {
            let normalized = (x[start + column] - mean) * rstd;
            y[start + column] = normalized * weight[column] + bias[column];
            column += units;
        }
    }
}

/// One cube per block of rows: with `g = dy · weight` and the normalised values z, `dx = rstd · (g - mean(g) - z · mean(g · z))`,
/// and the block's shares of `d_weight = Σ dy · z` and `d_bias = Σ dy`. A unit owns its columns.
#[cube(launch_unchecked)]
fn layer_norm_backward_kernel(
    x: &Tensor<f32>,
    weight: &Tensor<f32>,
    means: &Tensor<f32>,
    rstds: &Tensor<f32>,
    dy: &Tensor<f32>,
    dx: &mut Tensor<f32>,
    partial: &mut Tensor<f32>,
    blocks: u32,
    n: u32,
    width: u32,
    #[comptime] rows_per_cube: usize,
    #[comptime] units: usize,
) {
    let mut buffer = Shared::<[f32]>::new_slice(units);
    let mut g_means = Shared::<[f32]>::new_slice(rows_per_cube);
    let mut gz_means = Shared::<[f32]>::new_slice(rows_per_cube);
    let (width, n, block) = (width as usize, n as usize, CUBE_POS);
    if block < blocks as usize {
        let first = block * rows_per_cube;
        for i in 0..rows_per_cube {
            let row = first + i;
            let mut g_sum = 0.0f32;
            let mut gz_sum = 0.0f32;
            if row < n {
                let start = row * width;
                let (mean, rstd) = (means[row], rstds[row]);
                let mut column = UNIT_POS as usize;
                while column < width {
                    let g = dy[start + column] * weight[column];
                    g_sum += g;
                    gz_sum += g * (x[start + column] - mean) * rstd;
                    column += units;
                }
            }
            let g_sum = cube_sum(g_sum, &mut buffer, units);
            let gz_sum = cube_sum(gz_sum, &mut buffer, units);
            if UNIT_POS == 0 {
                g_means[i] = g_sum / f32::cast_from(width);
                gz_means[i] = gz_sum / f32::cast_from(width);
            }
        }
        sync_cube();
        let mut column = UNIT_POS as usize;
        while column < width {
            let w = weight[column];
            let mut d_weight = 0.0f32;
            let mut d_bias = 0.0f32;
            for i in 0..rows_per_cube {
                let row = first + i;
                if row < n {
                    let at = row * width + column;
                    let upstream = dy[at];
                    let z = (x[at] - means[row]) * rstds[row];
                    dx[at] = rstds[row] * (upstream * w - g_means[i] - z * gz_means[i]);
                    d_weight += upstream * z;
                    d_bias += upstream;
                }
            }
            partial[block * 2 * width + column] = d_weight;
            partial[(block * 2 + 1) * width + column] = d_bias;
            column += units;
        }
    }
}
