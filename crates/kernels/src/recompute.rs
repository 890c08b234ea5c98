//! Recomputation of a block in the backward pass.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};

/// Whether [`recompute`] saves memory on this device; elsewhere it only calls its function.
pub fn recomputes_on(device: &Device) -> bool {
    device.clone().inner() == Device::flex()
}

/// `forward(block, x)`; the graph keeps only `x`, and the backward pass calls `forward` again.
///
/// Both calls get a copy of `block` with other leaves than the block's own. `forward` may read no other tracked tensor
/// and must compute the same values both times.
///
/// # Panics
/// If the block trains more than 47 tensors.
pub fn recompute<M: Module + 'static>(
    block: M,
    x_btd: Tensor<3>,
    forward: impl Fn(&M, Tensor<3>) -> Tensor<3> + Clone + Send + 'static,
) -> Tensor<3> {
    let is_f32 = x_btd.dtype() == DType::F32;
    if recomputes_on(&x_btd.device()) && is_f32 && x_btd.is_autodiff() {
        kernels_cpu::recompute(block, x_btd, forward)
    } else {
        forward(&block, x_btd)
    }
}
