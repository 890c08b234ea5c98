//! Weights as operations read them: dense, or in the blocks of a GGUF file.

use burn::backend::Flex;
use burn::tensor::{DType, Int, Tensor, TensorData};
use kernels_cpu::{BlockMatrix, CpuTensor, CpuWeight, TensorType};

/// A weight as operations read it.
#[derive(Clone, Debug)]
// Few exist at a time, so their size on the stack does not matter.
#[allow(clippy::large_enum_variant)]
pub enum WeightTensor {
    /// f32, or bf16 if it is frozen.
    Dense(Tensor<2>),
    /// Frozen blocks in host memory. Products have the bits of those with the same values in f32.
    Blocks(BlockMatrix),
}

impl From<Tensor<2>> for WeightTensor {
    fn from(weight: Tensor<2>) -> Self {
        Self::Dense(weight)
    }
}

impl WeightTensor {
    /// The number of rows and of columns.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(weight) => weight.dims(),
            Self::Blocks(weight) => weight.dims(),
        }
    }

    /// The weight as a tensor: itself, or the values of its blocks in f32.
    pub fn into_tensor(self) -> Tensor<2> {
        match self {
            Self::Dense(weight) => weight,
            Self::Blocks(weight) => block_values(&weight),
        }
    }

    pub(crate) fn into_cpu(self) -> CpuWeight {
        match self {
            Self::Dense(weight) => CpuWeight::Tensor(CpuTensor::new(weight)),
            Self::Blocks(weight) => CpuWeight::Blocks(weight),
        }
    }
}

/// Blocks as a file has them, on the CPU.
pub fn block_bytes(bytes: Vec<u8>) -> Tensor<1, Int> {
    let n = bytes.len();
    Tensor::from_data(TensorData::new(bytes, [n]), (&burn::tensor::Device::flex(), DType::U8))
}

/// A matrix of `dims` in the blocks of [`block_bytes`].
///
/// # Panics
/// If the bytes are elsewhere than on the CPU, or not as many as the matrix has in that format.
pub fn block_matrix(bytes: Tensor<1, Int>, ty: TensorType, dims: [usize; 2]) -> BlockMatrix {
    match bytes.try_into_primitive::<Flex>() {
        Ok(bytes) => BlockMatrix::new(bytes, ty, dims),
        Err(error) => unreachable!("blocks are kept on the CPU: {error:?}"),
    }
}

/// The values in f32, off autodiff.
pub fn block_values(weight: &BlockMatrix) -> Tensor<2> {
    Tensor::from_primitive::<Flex>(weight.values())
}

/// The weight rounded to bf16 and stored so. Every operation of this crate accepts it as a weight; its gradient is not
/// computed.
pub fn round_weight<const D: usize>(weight: Tensor<D>) -> Tensor<D> {
    weight.cast(DType::BF16)
}

/// The weight in f32, for the generic kernels.
pub(crate) fn as_f32<const D: usize>(weight: Tensor<D>) -> Tensor<D> {
    if weight.dtype() == DType::F32 { weight } else { weight.cast(DType::F32) }
}
