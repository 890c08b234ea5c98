//! Rows of a table by id.

use burn::tensor::{Int, Tensor, module};
use kernels_cpu::CpuTensor;

use crate::dispatch::{KernelSet, Select};
use crate::target_rows::host_ids;
use crate::weight::as_f32;

/// `weight_vd[ids_bt]`: `[b, t, d]`.
///
/// # Panics
/// On the CPU if an id is not below v. Other devices do not check ids: callers compare the vocabulary with the model
/// beforehand.
pub fn embedding(weight_vd: Tensor<2>, ids_bt: Tensor<2, Int>) -> Tensor<3> {
    match Select::new().weight(&weight_vd).kernel_set() {
        KernelSet::Cpu => {
            let dims = ids_bt.dims();
            let weight = CpuTensor::new(weight_vd);
            kernels_cpu::embedding(&weight, dims, host_ids(ids_bt)).into_tensor()
        }
        #[cfg(feature = "gpu")]
        KernelSet::Generic if crate::gpu::reads(&weight_vd) => {
            crate::gpu::embedding(weight_vd, ids_bt)
        }
        KernelSet::Generic => as_f32(module::embedding(weight_vd, ids_bt)),
    }
}
