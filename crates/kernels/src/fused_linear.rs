//! Linear maps of one input: a norm or gate before the products, adapters and a residual after them.
//!
//! The CPU kernel computes the norm or gate again in the backward pass, so only the block's own input is kept.

use burn::tensor::Tensor;
pub use kernels_cpu::WeightLayout;
use kernels_cpu::{CpuAdapter, CpuLinearInput, CpuLinearMap, CpuTensor};

use crate::activation::{GeluKind, gelu, generic_gelu_tanh, generic_swiglu, swiglu};
use crate::dispatch::{KernelSet, Select};
use crate::linear::{generic_linear, generic_linear_io};
use crate::lora::generic_add_lora;
use crate::norm::{generic_layer_norm, generic_rms_norm, layer_norm, rms_norm};
use crate::precision::precision;
use crate::weight::WeightTensor;

/// Input of the maps: `[b, t, i]` after the named operation.
#[derive(Clone, Debug)]
// Few exist at a time, so their size on the stack does not matter.
#[allow(clippy::large_enum_variant)]
pub enum LinearInput {
    /// The tensor itself.
    Plain(Tensor<3>),
    /// [`rms_norm`] of it.
    RmsNorm {
        /// `[b, t, i]`
        x_btd: Tensor<3>,
        /// `[i]`
        weight_d: Tensor<1>,
        /// Added to the mean square.
        eps: f64,
    },
    /// [`layer_norm`] of it.
    LayerNorm {
        /// `[b, t, i]`
        x_btd: Tensor<3>,
        /// `[i]`
        weight_d: Tensor<1>,
        /// `[i]`
        bias_d: Option<Tensor<1>>,
        /// Added to the variance.
        eps: f64,
    },
    /// [`gelu`] of it, by the tanh approximation.
    GeluTanh(Tensor<3>),
    /// [`swiglu`] of its two halves, `[b, t, 2 · i]`: gates, then the values that they scale.
    SwiGlu(Tensor<3>),
}

/// A low-rank update of a weight: `scale · B·A`.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// `[r, in]`
    pub a_ri: Tensor<2>,
    /// `[out, r]`
    pub b_or: Tensor<2>,
    /// Factor of the product.
    pub scale: f64,
}

/// One linear map.
#[derive(Clone, Debug)]
pub struct LinearMap {
    /// The weight.
    pub weight: WeightTensor,
    /// Axis order of the weight.
    pub layout: WeightLayout,
    /// `[out]`
    pub bias_o: Option<Tensor<1>>,
    /// Update of the weight.
    pub adapter: Option<Adapter>,
}

/// The outputs of `maps`, concatenated in the last dimension, plus `residual`.
///
/// Gradients of weights, factors and biases that are not tracked are not computed, and nothing is kept for them.
///
/// # Panics
/// If there is no map, or shapes do not fit.
pub fn fused_linear(
    input: LinearInput,
    maps: &[LinearMap],
    residual_bto: Option<Tensor<3>>,
) -> Tensor<3> {
    match select(&input, maps, residual_bto.as_ref()) {
        KernelSet::Cpu => {
            let maps = maps.iter().map(LinearMap::to_cpu).collect();
            let residual = residual_bto.map(CpuTensor::new);
            kernels_cpu::fused_linear(input.into_cpu(), maps, residual, precision()).into_tensor()
        }
        KernelSet::Generic => generic(input, maps, residual_bto),
    }
}

/// The maximum number of maps of the CPU kernel.
const MAX_MAPS: usize = 3;

fn select(input: &LinearInput, maps: &[LinearMap], residual: Option<&Tensor<3>>) -> KernelSet {
    if !(1..=MAX_MAPS).contains(&maps.len()) {
        return KernelSet::Generic;
    }
    let select = Select::new().optional(residual);
    let select = match input {
        LinearInput::Plain(x) | LinearInput::SwiGlu(x) | LinearInput::GeluTanh(x) => {
            select.float(x)
        }
        LinearInput::RmsNorm { x_btd, weight_d, .. } => select.float(x_btd).float(weight_d),
        LinearInput::LayerNorm { x_btd, weight_d, bias_d, .. } => {
            select.float(x_btd).float(weight_d).optional(bias_d.as_ref())
        }
    };
    let of_map = |select: Select, map: &LinearMap| {
        let select = select.stored(&map.weight).optional(map.bias_o.as_ref());
        match &map.adapter {
            Some(adapter) => select.float(&adapter.a_ri).float(&adapter.b_or),
            None => select,
        }
    };
    maps.iter().fold(select, of_map).kernel_set()
}

impl LinearInput {
    /// The input as a tensor, `[b, t, i]`.
    pub fn tensor(self) -> Tensor<3> {
        match self {
            Self::Plain(x_bti) => x_bti,
            Self::RmsNorm { x_btd, weight_d, eps } => rms_norm(x_btd, weight_d, eps),
            Self::LayerNorm { x_btd, weight_d, bias_d, eps } => {
                layer_norm(x_btd, weight_d, bias_d, eps)
            }
            Self::GeluTanh(x_btf) => gelu(x_btf, GeluKind::Tanh),
            Self::SwiGlu(x_btf) => {
                let [gate, up] = halves(x_btf);
                swiglu(gate, up)
            }
        }
    }

    fn generic_tensor(self) -> Tensor<3> {
        match self {
            Self::Plain(x_bti) => x_bti,
            Self::RmsNorm { x_btd, weight_d, eps } => generic_rms_norm(x_btd, weight_d, eps),
            Self::LayerNorm { x_btd, weight_d, bias_d, eps } => {
                generic_layer_norm(x_btd, weight_d, bias_d, eps)
            }
            Self::GeluTanh(x_btf) => generic_gelu_tanh(x_btf),
            #[cfg(feature = "gpu")]
            Self::SwiGlu(x_btf) if crate::gpu::reads(&x_btf) => crate::gpu::swiglu_halves(x_btf),
            Self::SwiGlu(x_btf) => {
                let [gate, up] = halves(x_btf);
                generic_swiglu(gate, up)
            }
        }
    }

    fn into_cpu(self) -> CpuLinearInput {
        match self {
            Self::Plain(x) => CpuLinearInput::Plain(CpuTensor::new(x)),
            Self::RmsNorm { x_btd, weight_d, eps } => CpuLinearInput::RmsNorm {
                x: CpuTensor::new(x_btd),
                weight: CpuTensor::new(weight_d),
                eps: eps as f32,
            },
            Self::LayerNorm { x_btd, weight_d, bias_d, eps } => CpuLinearInput::LayerNorm {
                x: CpuTensor::new(x_btd),
                weight: CpuTensor::new(weight_d),
                bias: bias_d.map(CpuTensor::new),
                eps: eps as f32,
            },
            Self::GeluTanh(x) => CpuLinearInput::GeluTanh(CpuTensor::new(x)),
            Self::SwiGlu(x) => CpuLinearInput::SwiGlu(CpuTensor::new(x)),
        }
    }
}

/// Both halves of the last dimension.
fn halves(x_btf: Tensor<3>) -> [Tensor<3>; 2] {
    let [b, t, width] = x_btf.dims();
    [0, width / 2].map(|start| x_btf.clone().slice([0..b, 0..t, start..start + width / 2]))
}

impl LinearMap {
    fn to_cpu(&self) -> CpuLinearMap {
        CpuLinearMap {
            weight: self.weight.clone().into_cpu(),
            layout: self.layout,
            bias: self.bias_o.clone().map(CpuTensor::new),
            adapter: self.adapter.as_ref().map(|adapter| CpuAdapter {
                a: CpuTensor::new(adapter.a_ri.clone()),
                b: CpuTensor::new(adapter.b_or.clone()),
                scale: adapter.scale as f32,
            }),
        }
    }

    /// A weight `[out, in]` alone.
    #[cfg(feature = "gpu")]
    fn is_plain(&self) -> bool {
        self.layout == WeightLayout::OutIn && self.bias_o.is_none() && self.adapter.is_none()
    }

    fn generic_apply(&self, x_bti: Tensor<3>) -> Tensor<3> {
        let (weight, bias_o) = (self.weight.clone().into_tensor(), self.bias_o.clone());
        let y_bto = match self.layout {
            WeightLayout::OutIn => generic_linear(x_bti.clone(), weight, bias_o),
            WeightLayout::InOut => generic_linear_io(x_bti.clone(), weight, bias_o),
        };
        match &self.adapter {
            None => y_bto,
            Some(Adapter { a_ri, b_or, scale }) => {
                generic_add_lora(y_bto, x_bti, a_ri.clone(), b_or.clone(), *scale)
            }
        }
    }
}

fn generic(input: LinearInput, maps: &[LinearMap], residual_bto: Option<Tensor<3>>) -> Tensor<3> {
    let x_bti = input.generic_tensor();
    let out_bto = generic_maps(&x_bti, maps);
    match residual_bto {
        Some(residual_bto) => out_bto + residual_bto,
        None => out_bto,
    }
}

/// The results of the maps, side by side.
fn generic_maps(x_bti: &Tensor<3>, maps: &[LinearMap]) -> Tensor<3> {
    #[cfg(feature = "gpu")]
    if maps.len() > 1
        && maps.iter().all(LinearMap::is_plain)
        && let weights = maps.iter().map(|map| map.weight.clone().into_tensor()).collect::<Vec<_>>()
        && let Some(out_bto) = crate::linear::side_by_side(x_bti, &weights)
    {
        return out_bto;
    }
    let mut outs: Vec<Tensor<3>> =
        maps.iter().map(|map| map.generic_apply(x_bti.clone())).collect();
    if outs.len() == 1 { outs.remove(0) } else { Tensor::cat(outs, 2) }
}
