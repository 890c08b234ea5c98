//! Matrix products with a weight, in both layouts that checkpoints use.
//!
//! It deliberately holds no adapter: that is a second product, added by nn.

use burn::tensor::Tensor;

use crate::autodiff::fits;
use crate::product::matmul;
use crate::stored::{as_f32, weight_fits};
use crate::{LinearInput, LinearMap, WeightLayout, fused_linear, is_cpu};

/// From this many rows on gemm is as fast with the weight on either side.
///
/// Below it (but for a single row) gemm's cost jumps many times over unless the weight stands on
/// the left; generation with several prompts lives there.
const FEW_ROWS: usize = 64;

/// `x · weightᵀ + bias` over the last dimension, weight `[out, in]` as in Hugging Face's Linear.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight_oi: Tensor<2>,
    bias_o: Option<Tensor<1>>,
) -> Tensor<D> {
    if fits(&x) && weight_fits(&weight_oi) {
        return mapped(x, weight_oi, WeightLayout::OutIn, bias_o);
    }
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
    product(x, weight_oi.transpose(), d_out, bias_o)
}

/// The fused body, over rows that stand in one batch.
fn mapped<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    layout: WeightLayout,
    bias_o: Option<Tensor<1>>,
) -> Tensor<D> {
    let mut dims = x.dims();
    let n_rows = dims[..D - 1].iter().product::<usize>();
    let x_1ni = x.reshape([1, n_rows, dims[D - 1]]);
    let map = LinearMap { weight, layout, bias_o, adapter: None };
    let y_1no = fused_linear(LinearInput::Plain(x_1ni), &[map], None);
    dims[D - 1] = y_1no.dims()[2];
    y_1no.reshape(dims)
}

/// `x · weight + bias` with all rows in one matrix: with a batch dimension the weight's gradient would be made once for
/// each member of the batch and then summed.
fn product<const D: usize>(
    x: Tensor<D>,
    weight_io: Tensor<2>,
    d_out: usize,
    bias_o: Option<Tensor<1>>,
) -> Tensor<D> {
    let mut dims = x.dims();
    let d_in = dims[D - 1];
    let n_rows = dims[..D - 1].iter().product::<usize>();
    let y_no = matmul(x.reshape([n_rows, d_in]), weight_io);
    let y_no = match bias_o {
        Some(bias_o) => y_no + bias_o.unsqueeze(),
        None => y_no,
    };
    dims[D - 1] = d_out;
    y_no.reshape(dims)
}

/// `x · weight + bias` over the last dimension, weight `[in, out]` as in GPT-2's Conv1D.
pub fn linear_io<const D: usize>(
    x: Tensor<D>,
    weight_io: Tensor<2>,
    bias_o: Option<Tensor<1>>,
) -> Tensor<D> {
    let [_, d_out] = weight_io.dims();
    if fits(&x) && weight_fits(&weight_io) {
        return mapped(x, weight_io, WeightLayout::InOut, bias_o);
    }
    product(x, as_f32(weight_io), d_out, bias_o)
}
