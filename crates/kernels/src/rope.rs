//! Rotary position embedding (Su et al. 2021) in the half-split layout of Hugging Face.
//!
//! The tables of angles come from `arch`; `nn` gathers them per position.

use burn::tensor::Tensor;
use kernels_cpu::CpuTensor;

use crate::dispatch::{KernelSet, Select};

/// Rotates each head's pairs `(x[j], x[j + k/2])` by its position's angle `j`.
///
/// `cos_btc` and `sin_btc` hold one value per pair, `c = k / 2`, with the model's attention factor already applied.
pub fn rope(x_bthk: Tensor<4>, cos_btc: Tensor<3>, sin_btc: Tensor<3>) -> Tensor<4> {
    let select = Select::new().float(&x_bthk).constant(&cos_btc).constant(&sin_btc);
    match select.kernel_set() {
        KernelSet::Cpu => {
            let value = |x: Tensor<3>| CpuTensor::new(x).into_value();
            let x = CpuTensor::new(x_bthk);
            kernels_cpu::rope(&x, value(cos_btc), value(sin_btc)).into_tensor()
        }
        KernelSet::Generic => generic_rope(x_bthk, cos_btc, sin_btc),
    }
}

pub(crate) fn generic_rope(x_bthk: Tensor<4>, cos_btc: Tensor<3>, sin_btc: Tensor<3>) -> Tensor<4> {
    let [b, t, h, k] = x_bthk.dims();
    let half = k / 2;
    #[cfg(feature = "gpu")]
    if crate::gpu::reads(&x_bthk) && [&cos_btc, &sin_btc].iter().all(|x| x.dims() == [b, t, half]) {
        return crate::gpu::rope(x_bthk, cos_btc, sin_btc);
    }
    let first = x_bthk.clone().slice([0..b, 0..t, 0..h, 0..half]);
    let second = x_bthk.slice([0..b, 0..t, 0..h, half..k]);
    let cos = cos_btc.unsqueeze_dim::<4>(2);
    let sin = sin_btc.unsqueeze_dim::<4>(2);
    let rotated_first = first.clone() * cos.clone() - second.clone() * sin.clone();
    let rotated_second = second * cos + first * sin;
    Tensor::cat(vec![rotated_first, rotated_second], 3)
}
