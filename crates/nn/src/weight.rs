//! The weight of a layer: dense, packed into fewer bits and frozen, or in the blocks of a GGUF file.
//!
//! Layers and adapters use a weight through [`Weight::matmul`], so how a weight is stored matters here
//! alone.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, Int, Tensor};
use kernels::{PackedFormat, PackedLayout, TensorType, WeightLayout, WeightTensor};

use crate::llm_int8;

/// A weight matrix, in its layer's layout.
// A model holds a few hundred weights, so their size on the stack does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum Weight {
    /// f32, or bf16 if it is frozen: the tensor's own dtype says which, and kernels read both.
    Dense(Param<Tensor<2>>),
    /// 4 or 8 bits an element; always frozen.
    Packed(PackedWeight),
    /// The blocks of a GGUF file, on the CPU; always frozen. Operations have the results of the same values in f32.
    Blocks(BlockWeight),
}

/// A weight in blocks of small integers, each block with a scale of its own.
#[derive(Module, Debug)]
pub struct PackedWeight {
    /// The codes in row-major order; see [`PackedLayout`].
    pub codes: Param<Tensor<1, Int>>,
    #[module(skip)]
    layout: PackedLayout,
    /// The device of the weight that was packed, autodiff included.
    #[module(skip)]
    device: Device,
    /// Rounds inputs as bitsandbytes does in evaluation, with this threshold of outliers.
    #[module(skip)]
    rounds_inputs: Option<f64>,
}

/// A weight in the blocks of a GGUF file.
#[derive(Module, Debug)]
pub struct BlockWeight {
    /// The blocks, row after row.
    pub bytes: Param<Tensor<1, Int>>,
    #[module(skip)]
    ty: TensorType,
    #[module(skip)]
    dims: [usize; 2],
}

impl BlockWeight {
    fn matrix(&self) -> kernels::BlockMatrix {
        kernels::block_matrix(self.bytes.val(), self.ty, self.dims)
    }
}

impl Weight {
    /// A dense weight of given values.
    pub fn new(weight: Tensor<2>) -> Self {
        Self::Dense(Param::from_tensor(weight))
    }

    /// The weight packed in blocks; packing a packed weight rounds it a second time.
    #[must_use]
    pub fn pack(&self, format: PackedFormat) -> Self {
        let (codes, layout) = kernels::pack(self.val().inner(), format);
        Self::packed(codes, layout, self.device())
    }

    /// A weight of given codes, off autodiff; `device` is that of the other weights, autodiff included.
    pub fn packed(codes: Tensor<1, Int>, layout: PackedLayout, device: Device) -> Self {
        let codes = Param::initialized(ParamId::new(), codes);
        Self::Packed(PackedWeight { codes, layout, device, rounds_inputs: None })
    }

    /// A weight in the blocks of a GGUF file, on the CPU.
    ///
    /// # Panics
    /// If the bytes are not as many as the matrix has in that format.
    pub fn blocks(bytes: Vec<u8>, ty: TensorType, dims: [usize; 2]) -> Self {
        let bytes = Param::initialized(ParamId::new(), kernels::block_bytes(bytes));
        let blocks = BlockWeight { bytes, ty, dims };
        blocks.matrix();
        Self::Blocks(blocks)
    }

    /// Rounds the inputs of a packed weight to 8 bits in each row, as bitsandbytes does in evaluation, except for columns
    /// with a magnitude of at least `threshold`. Only for comparisons with it: there is no gradient of the inputs.
    pub fn round_inputs(&mut self, threshold: f64) {
        match self {
            Self::Packed(packed) => packed.rounds_inputs = Some(threshold),
            Self::Dense(_) | Self::Blocks(_) => {}
        }
    }

    /// The shape as it is stored.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(weight) => weight.dims(),
            Self::Packed(packed) => packed.layout.dims,
            Self::Blocks(blocks) => blocks.dims,
        }
    }

    /// The device of the weight.
    pub fn device(&self) -> Device {
        match self {
            Self::Dense(weight) => weight.val().device(),
            Self::Packed(packed) => packed.device.clone(),
            Self::Blocks(blocks) => blocks.bytes.val().device(),
        }
    }

    /// The weight as one tensor: the parameter itself, or the values of packed codes or blocks in f32, which
    /// are a constant.
    pub fn val(&self) -> Tensor<2> {
        match self {
            Self::Dense(weight) => weight.val(),
            Self::Packed(packed) => kernels::unpack(packed.codes.val(), &packed.layout),
            Self::Blocks(blocks) => kernels::block_values(&blocks.matrix()),
        }
    }

    /// The weight as fused kernels read it in place; `None` if it is packed.
    pub fn in_place(&self) -> Option<WeightTensor> {
        match self {
            Self::Dense(weight) => Some(weight.val().into()),
            Self::Blocks(blocks) => Some(WeightTensor::Blocks(blocks.matrix())),
            Self::Packed(_) => None,
        }
    }

    /// The parameter, if the weight is dense.
    pub fn dense(&self) -> Option<Tensor<2>> {
        match self {
            Self::Dense(weight) => Some(weight.val()),
            Self::Packed(_) | Self::Blocks(_) => None,
        }
    }

    /// `x · weightᵀ + bias` for a weight `[out, in]`, `x · weight + bias` for one of `[in, out]`:
    /// `[.., in]` → `[.., out]`. A frozen weight gets no gradient; `x` does.
    pub fn matmul<const D: usize>(
        &self,
        x: Tensor<D>,
        layout: WeightLayout,
        bias_o: Option<Tensor<1>>,
    ) -> Tensor<D> {
        match (self, layout) {
            (Self::Packed(packed), axes) => {
                let x = match packed.rounds_inputs {
                    Some(threshold) => llm_int8::rounded(x, threshold),
                    None => x,
                };
                let y = kernels::packed_linear(x, &packed.codes.val(), &packed.layout, axes);
                match bias_o {
                    Some(bias_o) => y + bias_o.unsqueeze(),
                    None => y,
                }
            }
            (Self::Dense(weight), WeightLayout::OutIn) => kernels::linear(x, weight.val(), bias_o),
            (Self::Dense(weight), WeightLayout::InOut) => {
                kernels::linear_io(x, weight.val(), bias_o)
            }
            (Self::Blocks(blocks), WeightLayout::OutIn) => {
                kernels::linear(x, WeightTensor::Blocks(blocks.matrix()), bias_o)
            }
            (Self::Blocks(blocks), WeightLayout::InOut) => {
                kernels::linear_io(x, WeightTensor::Blocks(blocks.matrix()), bias_o)
            }
        }
    }

    /// Makes a weight dense that is packed or in blocks.
    pub fn dequantise(&mut self) {
        if self.dense().is_none() {
            self.update(|weight| weight);
        }
    }

    /// Replaces the values; the weight becomes dense.
    pub fn update(&mut self, new: impl FnOnce(Tensor<2>) -> Tensor<2>) {
        *self = match &*self {
            Self::Dense(weight) => Self::Dense(kernels::update_param(weight.clone(), new)),
            Self::Packed(packed) => {
                let values = new(self.val()).into_data();
                Self::new(Tensor::from_data(values, &packed.device))
            }
            Self::Blocks(_) => Self::new(new(self.val())),
        };
    }
}

/// The values in f32.
pub(crate) fn widened(weight: Tensor<2>) -> Tensor<2> {
    if weight.dtype() == DType::F32 { weight } else { weight.cast(DType::F32) }
}

/// The Euclidean norm of each row: `[out, in]` → `[out]`.
pub fn row_norms(weight_oi: Tensor<2>) -> Tensor<1> {
    let n_rows = weight_oi.dims()[0];
    weight_oi.square().sum_dim(1).sqrt().reshape([n_rows])
}
