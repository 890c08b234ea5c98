//! Gradient buffers that a backward pass adds to in place.

use burn::tensor::Tensor;
use kernels_cpu::CpuTensor;

use crate::dispatch::{KernelSet, Select};

/// Donates a sum of gradients `[n]` of a parameter to the next backward pass on this thread.
///
/// Matrix products add to the buffer in place, and the result is the parameter's gradient. Returns the sum where no
/// operation can use it. A buffer that no operation took is returned by [`reclaim_grad_buffer`] afterwards.
pub fn donate_grad_buffer<const D: usize>(
    parameter: &Tensor<D>,
    sum: Tensor<1>,
) -> Option<Tensor<1>> {
    match Select::new().float(parameter).float(&sum).kernel_set() {
        KernelSet::Cpu => {
            let n = sum.dims();
            let sum = CpuTensor::new(sum.reshape::<D, _>(parameter.dims())).into_value();
            let parameter = CpuTensor::new(parameter.clone());
            let returned = kernels_cpu::donate_grad_buffer(&parameter, sum)?;
            Some(CpuTensor::Constant(returned).into_tensor::<D>().reshape(n))
        }
        KernelSet::Generic => Some(sum),
    }
}

/// The parameter's donated sum `[n]`, if no operation took it.
pub fn reclaim_grad_buffer<const D: usize>(parameter: &Tensor<D>) -> Option<Tensor<1>> {
    match Select::new().float(parameter).kernel_set() {
        KernelSet::Cpu => {
            let sum = kernels_cpu::reclaim_grad_buffer(&CpuTensor::new(parameter.clone()))?;
            let n: usize = parameter.dims().iter().product();
            Some(CpuTensor::Constant(sum).into_tensor::<D>().reshape([n]))
        }
        KernelSet::Generic => None,
    }
}
