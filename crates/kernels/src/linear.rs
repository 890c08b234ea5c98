//! Matrix products with a weight, in both layouts of checkpoints.

use burn::tensor::Tensor;
use kernels_cpu::{CpuLinearInput, CpuLinearMap, CpuTensor, WeightLayout};

use crate::device::is_cpu;
use crate::dispatch::{KernelSet, Select};
use crate::matmul::matmul;
use crate::precision::precision;
use crate::weight::{WeightTensor, as_f32};

/// From this many rows on, burn's matrix product on the CPU is as fast with the weight on either side.
///
/// Below (except for a single row) it is several times slower unless the weight is on the left. Generation with several
/// prompts has that many rows.
const FEW_ROWS: usize = 64;

/// `x · weightᵀ + bias` over the last dimension, weight `[out, in]` as in Hugging Face's Linear.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight_oi: impl Into<WeightTensor>,
    bias_o: Option<Tensor<1>>,
) -> Tensor<D> {
    let weight_oi = weight_oi.into();
    match Select::new().float(&x).stored(&weight_oi).optional(bias_o.as_ref()).kernel_set() {
        KernelSet::Cpu => cpu_linear(x, weight_oi, WeightLayout::OutIn, bias_o),
        KernelSet::Generic => generic_linear(x, weight_oi.into_tensor(), bias_o),
    }
}

/// `x · weight + bias` over the last dimension, weight `[in, out]` as in GPT-2's Conv1D.
pub fn linear_io<const D: usize>(
    x: Tensor<D>,
    weight_io: impl Into<WeightTensor>,
    bias_o: Option<Tensor<1>>,
) -> Tensor<D> {
    let weight_io = weight_io.into();
    match Select::new().float(&x).stored(&weight_io).optional(bias_o.as_ref()).kernel_set() {
        KernelSet::Cpu => cpu_linear(x, weight_io, WeightLayout::InOut, bias_o),
        KernelSet::Generic => generic_linear_io(x, weight_io.into_tensor(), bias_o),
    }
}

/// The CPU kernel, with all rows in one batch.
pub(crate) fn cpu_linear<const D: usize>(
    x: Tensor<D>,
    weight: WeightTensor,
    layout: WeightLayout,
    bias_o: Option<Tensor<1>>,
) -> Tensor<D> {
    let mut dims = x.dims();
    let n_rows = dims[..D - 1].iter().product::<usize>();
    let x_1ni: Tensor<3> = x.reshape([1, n_rows, dims[D - 1]]);
    let map = CpuLinearMap {
        weight: weight.into_cpu(),
        layout,
        bias: bias_o.map(CpuTensor::new),
        adapter: None,
    };
    let input = CpuLinearInput::Plain(CpuTensor::new(x_1ni));
    let y_1no = kernels_cpu::fused_linear(input, vec![map], None, precision()).into_tensor::<3>();
    dims[D - 1] = y_1no.dims()[2];
    y_1no.reshape(dims)
}

pub(crate) fn generic_linear<const D: usize>(
    x: Tensor<D>,
    weight_oi: Tensor<2>,
    bias_o: Option<Tensor<1>>,
) -> Tensor<D> {
    let weight_oi = as_f32(weight_oi);
    let dims = x.dims();
    let [d_out, d_in] = weight_oi.dims();
    let n_rows = dims[..D - 1].iter().product::<usize>();
    let few = (2..=FEW_ROWS).contains(&n_rows) && is_cpu(&x.device());
    if few && !x.is_autodiff() && !weight_oi.is_autodiff() {
        let x_in = x.reshape([n_rows, d_in]).transpose();
        let y_no = matmul(weight_oi, x_in).transpose();
        let y_no = match bias_o {
            Some(bias) => y_no + bias.unsqueeze(),
            None => y_no,
        };
        let mut out_dims = dims;
        out_dims[D - 1] = d_out;
        return y_no.reshape(out_dims);
    }
    #[cfg(feature = "gpu")]
    if crate::gpu::reads(&x)
        && crate::gpu::reads(&weight_oi)
        && let Some(y_no) = crate::gpu::linear_maps(
            x.clone().reshape([n_rows, d_in]),
            std::slice::from_ref(&weight_oi),
        )
    {
        return with_bias(y_no, bias_o, dims);
    }
    rows_matmul(x, weight_oi.transpose(), bias_o)
}

/// `x · weightᵀ` of each weight `[out, in]`, side by side in the last dimension, in one product: on a GPU in training, where
/// three products read the weights once put below each other; else `None`.
#[cfg(feature = "gpu")]
pub(crate) fn side_by_side(x_bti: &Tensor<3>, weights_oi: &[Tensor<2>]) -> Option<Tensor<3>> {
    let reads = crate::gpu::reads(x_bti) && weights_oi.iter().all(crate::gpu::reads);
    if !reads || !x_bti.is_autodiff() {
        return None;
    }
    let [b, t, d_in] = x_bti.dims();
    let y_no = crate::gpu::linear_maps(x_bti.clone().reshape([b * t, d_in]), weights_oi)?;
    Some(with_bias(y_no, None, [b, t, d_in]))
}

pub(crate) fn generic_linear_io<const D: usize>(
    x: Tensor<D>,
    weight_io: Tensor<2>,
    bias_o: Option<Tensor<1>>,
) -> Tensor<D> {
    rows_matmul(x, as_f32(weight_io), bias_o)
}

/// `x · weight + bias` with all rows in one matrix. With a batch dimension the weight's gradient would be computed for
/// each member of the batch and then summed.
fn rows_matmul<const D: usize>(
    x: Tensor<D>,
    weight_io: Tensor<2>,
    bias_o: Option<Tensor<1>>,
) -> Tensor<D> {
    let dims = x.dims();
    let d_in = dims[D - 1];
    let n_rows = dims[..D - 1].iter().product::<usize>();
    with_bias(matmul(x.reshape([n_rows, d_in]), weight_io), bias_o, dims)
}

/// Rows `[n, out]` plus a bias, in the shape of `dims` with another width.
fn with_bias<const D: usize>(
    y_no: Tensor<2>,
    bias_o: Option<Tensor<1>>,
    mut dims: [usize; D],
) -> Tensor<D> {
    dims[D - 1] = y_no.dims()[1];
    match bias_o {
        Some(bias_o) => y_no + bias_o.unsqueeze(),
        None => y_no,
    }
    .reshape(dims)
}
