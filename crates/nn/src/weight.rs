//! The weight of a linear layer: dense, or packed into fewer bits and frozen.
//!
//! Layers and adapters use a weight through [`Weight::matmul`], so how a weight is stored matters here
//! alone.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor};
use kernels::{PackedFormat, WeightLayout};

/// A weight matrix, in its layer's layout.
// A model holds a few hundred weights, so their size on the stack does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum Weight {
    /// f32, or bf16 if it is frozen: the tensor's own dtype says which, and kernels read both.
    Dense(Param<Tensor<2>>),
    /// 4 or 8 bits an element; always frozen.
    Packed(PackedWeight),
}

/// A weight in blocks of small integers, each block with a scale of its own.
#[derive(Module, Debug)]
pub struct PackedWeight {
    /// The codes in row-major order; see [`PackedFormat`].
    pub codes: Param<Tensor<1, Int>>,
    #[module(skip)]
    scales: Tensor<1>,
    #[module(skip)]
    format: PackedFormat,
    #[module(skip)]
    dims: [usize; 2],
    /// The device of the weight that was packed, autodiff included.
    #[module(skip)]
    device: Device,
}

impl Weight {
    /// A dense weight of given values.
    pub fn new(weight: Tensor<2>) -> Self {
        Self::Dense(Param::from_tensor(weight))
    }

    /// The weight packed in blocks; packing a packed weight rounds it a second time.
    #[must_use]
    pub fn pack(&self, format: PackedFormat) -> Self {
        let (codes, scales) = kernels::pack(self.val().inner(), format);
        let codes = Param::initialized(ParamId::new(), codes);
        let (dims, device) = (self.dims(), self.device());
        Self::Packed(PackedWeight { codes, scales, format, dims, device })
    }

    /// The shape as it is stored.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(weight) => weight.dims(),
            Self::Packed(packed) => packed.dims,
        }
    }

    /// The device of the weight.
    pub fn device(&self) -> Device {
        match self {
            Self::Dense(weight) => weight.val().device(),
            Self::Packed(packed) => packed.device.clone(),
        }
    }

    /// The weight as one tensor: the parameter itself, or the values of the packed codes in f32, which
    /// are a constant.
    pub fn val(&self) -> Tensor<2> {
        match self {
            Self::Dense(weight) => weight.val(),
            Self::Packed(PackedWeight { codes, scales, format, dims, .. }) => {
                kernels::unpack(codes.val(), scales.clone(), *format, *dims)
            }
        }
    }

    /// The parameter, if the weight is dense: fused kernels read it in place.
    pub fn dense(&self) -> Option<Tensor<2>> {
        match self {
            Self::Dense(weight) => Some(weight.val()),
            Self::Packed(_) => None,
        }
    }

    /// `x · weightᵀ + bias` for a weight `[out, in]`, `x · weight + bias` for one of `[in, out]`:
    /// `[.., in]` → `[.., out]`. A packed weight gets no gradient; `x` does.
    pub fn matmul<const D: usize>(
        &self,
        x: Tensor<D>,
        layout: WeightLayout,
        bias_o: Option<Tensor<1>>,
    ) -> Tensor<D> {
        match layout {
            WeightLayout::OutIn => kernels::linear(x, self.val(), bias_o),
            WeightLayout::InOut => kernels::linear_io(x, self.val(), bias_o),
        }
    }

    /// Replaces the values; a packed weight becomes dense.
    pub fn update(&mut self, new: impl FnOnce(Tensor<2>) -> Tensor<2>) {
        *self = match &*self {
            Self::Dense(weight) => Self::Dense(kernels::update_param(weight.clone(), new)),
            Self::Packed(_) => Self::new(new(self.val())),
        };
    }
}
