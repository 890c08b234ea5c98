//! A weight that an operation multiplies by: a tensor, or frozen blocks of a file.

use crate::autodiff::CpuTensor;
use crate::blocks::BlockMatrix;
use crate::weight_storage::StoredWeight;

/// A weight as the operations read it.
#[derive(Clone, Debug)]
pub enum CpuWeight {
    /// f32, or bf16 if it is frozen.
    Tensor(CpuTensor),
    /// Frozen blocks.
    Blocks(BlockMatrix),
}

impl From<CpuTensor> for CpuWeight {
    fn from(weight: CpuTensor) -> Self {
        Self::Tensor(weight)
    }
}

impl CpuWeight {
    /// The number of rows and of columns.
    pub(crate) fn dims(&self) -> [usize; 2] {
        match self {
            Self::Tensor(weight) => weight.dims(),
            Self::Blocks(weight) => weight.dims(),
        }
    }

    /// The values.
    pub(crate) fn stored(&self) -> StoredWeight<'_> {
        match self {
            Self::Tensor(weight) => StoredWeight::new(weight.value()),
            Self::Blocks(weight) => StoredWeight::Blocks(weight.rows()),
        }
    }

    /// The tensor, if it is one.
    pub(crate) fn tensor(&self) -> Option<&CpuTensor> {
        match self {
            Self::Tensor(weight) => Some(weight),
            Self::Blocks(_) => None,
        }
    }

    /// Whether no graph has it.
    pub(crate) fn is_constant(&self) -> bool {
        !matches!(self, Self::Tensor(CpuTensor::Graph(_)))
    }
}
