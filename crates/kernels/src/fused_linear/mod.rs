//! Linear maps that read one input: norm or gate before the product, adapter and residual after it.
//!
//! What stands between two products of a block is computed on the way and again in the backward
//! pass, so only the block's own input is kept. It deliberately knows no layer: which maps share an
//! input is the caller's.

mod fused;
mod layer_norm;
mod read;

use burn::tensor::Tensor;

use crate::{GeluKind, add_lora, gelu, layer_norm, linear, linear_io, rms_norm, swiglu};

/// What the maps read, `[b, t, i]` after what is written here.
#[derive(Clone, Debug)]
// A handful live at a time: what they take on the stack does not matter.
#[allow(clippy::large_enum_variant)]
pub enum LinearInput {
    /// The tensor as it is.
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
    /// [`swiglu`] of its two halves: gates, then what they open, `[b, t, 2 · i]`.
    SwiGlu(Tensor<3>),
}

/// Which index of a weight is which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightLayout {
    /// `[out, in]`, as Hugging Face's Linear.
    OutIn,
    /// `[in, out]`, as GPT-2's Conv1D.
    InOut,
}

/// A low-rank update beside a weight: `scale · B·A`.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// `[r, in]`
    pub a_ri: Tensor<2>,
    /// `[out, r]`
    pub b_or: Tensor<2>,
    /// Multiplies the product of the factors.
    pub scale: f64,
}

/// One linear map.
#[derive(Clone, Debug)]
pub struct LinearMap {
    /// The weight, in the given layout.
    pub weight: Tensor<2>,
    /// The weight's layout.
    pub layout: WeightLayout,
    /// `[out]`
    pub bias_o: Option<Tensor<1>>,
    /// What is added to the weight.
    pub adapter: Option<Adapter>,
}

impl LinearMap {
    fn d_out(&self) -> usize {
        let [rows, columns] = self.weight.dims();
        if self.layout == WeightLayout::OutIn { rows } else { columns }
    }

    fn apply(&self, x_bti: Tensor<3>) -> Tensor<3> {
        let (weight, bias_o) = (self.weight.clone(), self.bias_o.clone());
        let y_bto = match self.layout {
            WeightLayout::OutIn => linear(x_bti.clone(), weight, bias_o),
            WeightLayout::InOut => linear_io(x_bti.clone(), weight, bias_o),
        };
        match &self.adapter {
            None => y_bto,
            Some(Adapter { a_ri, b_or, scale }) => {
                add_lora(y_bto, x_bti, a_ri.clone(), b_or.clone(), *scale)
            }
        }
    }
}

/// The outputs of `maps`, side by side in the last dimension, and `residual` added to them.
///
/// Gradients by weights, factors and biases that are not tracked are not computed, and nothing is
/// kept for them.
///
/// # Panics
/// If there is no map, or shapes don't fit.
pub fn fused_linear(
    read: LinearInput,
    maps: &[LinearMap],
    residual_bto: Option<Tensor<3>>,
) -> Tensor<3> {
    if fused::fits(&read, maps, residual_bto.as_ref()) {
        return fused::fused_linear(read, maps, residual_bto);
    }
    plain(read, maps, residual_bto)
}

impl LinearInput {
    /// What the maps read, as a tensor of its own.
    pub fn tensor(self) -> Tensor<3> {
        match self {
            Self::Plain(x_bti) => x_bti,
            Self::RmsNorm { x_btd, weight_d, eps } => rms_norm(x_btd, weight_d, eps),
            Self::LayerNorm { x_btd, weight_d, bias_d, eps } => {
                layer_norm(x_btd, weight_d, bias_d, eps)
            }
            Self::GeluTanh(x_btf) => gelu(x_btf, GeluKind::Tanh),
            Self::SwiGlu(x_btf) => {
                let [b, t, width] = x_btf.dims();
                let half = |start| x_btf.clone().slice([0..b, 0..t, start..start + width / 2]);
                swiglu(half(0), half(width / 2))
            }
        }
    }
}

fn plain(read: LinearInput, maps: &[LinearMap], residual_bto: Option<Tensor<3>>) -> Tensor<3> {
    let x_bti = read.tensor();
    let mut outs: Vec<Tensor<3>> = maps.iter().map(|map| map.apply(x_bti.clone())).collect();
    let out_bto = if outs.len() == 1 { outs.remove(0) } else { Tensor::cat(outs, 2) };
    match residual_bto {
        Some(residual_bto) => out_bto + residual_bto,
        None => out_bto,
    }
}
