//! Rows of a table by id.

use burn::tensor::{Int, Tensor, module};

use crate::dispatch::{KernelSet, Select};
use crate::target_rows::host_ids;
use crate::weight::{WeightTensor, as_f32};

/// `weight_vd[ids_bt]`: `[b, t, d]`.
///
/// # Panics
/// On the CPU if an id is not below v. Other devices do not check ids: callers compare the vocabulary with the model
/// beforehand.
pub fn embedding(weight_vd: impl Into<WeightTensor>, ids_bt: Tensor<2, Int>) -> Tensor<3> {
    let weight_vd = weight_vd.into();
    match Select::new().stored(&weight_vd).kernel_set() {
        KernelSet::Cpu => {
            let dims = ids_bt.dims();
            kernels_cpu::embedding(&weight_vd.into_cpu(), dims, host_ids(ids_bt)).into_tensor()
        }
        KernelSet::Generic => generic(weight_vd.into_tensor(), ids_bt),
    }
}

fn generic(weight_vd: Tensor<2>, ids_bt: Tensor<2, Int>) -> Tensor<3> {
    #[cfg(feature = "gpu")]
    if crate::gpu::reads(&weight_vd) {
        return crate::gpu::embedding(weight_vd, ids_bt);
    }
    as_f32(module::embedding(weight_vd, ids_bt))
}
