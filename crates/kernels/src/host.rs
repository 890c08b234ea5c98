//! Values of a tensor on the host, borrowed where the tensor is in host memory.

use burn::backend::Flex;
use burn::tensor::{DType, Tensor};

/// Calls `read` with the values in row-major order, as f32.
///
/// On the CPU contiguous f32 values are borrowed; other values are copied first.
pub fn with_host_values<const D: usize, R>(x: &Tensor<D>, read: impl FnOnce(&[f32]) -> R) -> R {
    let x = x.clone().inner();
    if x.dtype() == DType::F32
        && let Ok(flex) = x.clone().try_into_primitive::<Flex>()
        && let Some(values) = flex.as_slice::<f32>()
    {
        return read(values);
    }
    let values: Vec<f32> = x.into_data().convert::<f32>().iter::<f32>().collect();
    read(&values)
}
