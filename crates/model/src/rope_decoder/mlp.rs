//! Gated MLP: `down(activation(gate(x)) · up(x))`, under each of the names that checkpoints have for its layers.

use arch::Activation;
use burn::module::Module;
use burn::tensor::{Tensor, activation};
use kernels::{GeluKind, LinearInput};
use nn::{Linear, NamedProjection, Projection, fused_linear};

use crate::Result;
use crate::build::Builder;

/// A gated MLP. The alternatives have no name of their own in checkpoints.
#[derive(Module, Debug)]
pub(super) enum Mlp {
    Separate(SeparateMlp),
    Packed(PackedMlp),
    Numbered(NumberedMlp),
}

/// Checkpoint names of an MLP's layers.
#[derive(Clone, Copy, Debug)]
pub(super) enum MlpNames {
    Separate,
    Packed,
    Numbered,
}

// Field names are checkpoint keys.
#[allow(clippy::struct_field_names)]
#[derive(Module, Debug)]
pub(super) struct SeparateMlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

/// Gate and up projection are one layer: gates first.
#[derive(Module, Debug)]
pub(super) struct PackedMlp {
    gate_up_proj: Linear,
    down_proj: Linear,
}

/// Mixtral's names: gate, up, down.
#[derive(Module, Debug)]
pub(super) struct NumberedMlp {
    w1: Linear,
    w3: Linear,
    w2: Linear,
}

impl Mlp {
    /// An MLP of model width `d` and inner width `inner`.
    pub(super) fn build(
        names: MlpNames,
        d: usize,
        inner: usize,
        bias: bool,
        from: &mut Builder,
    ) -> Result<Self> {
        Ok(match names {
            MlpNames::Separate => Self::Separate(SeparateMlp {
                gate_proj: from.linear("gate_proj", d, inner, bias)?,
                up_proj: from.linear("up_proj", d, inner, bias)?,
                down_proj: from.linear("down_proj", inner, d, bias)?,
            }),
            MlpNames::Packed => Self::Packed(PackedMlp {
                gate_up_proj: from.linear("gate_up_proj", d, 2 * inner, bias)?,
                down_proj: from.linear("down_proj", inner, d, bias)?,
            }),
            MlpNames::Numbered => Self::Numbered(NumberedMlp {
                w1: from.linear("w1", d, inner, bias)?,
                w3: from.linear("w3", d, inner, bias)?,
                w2: from.linear("w2", inner, d, bias)?,
            }),
        })
    }

    /// The MLP's output, added to `residual` if there is one.
    pub(super) fn forward(
        &self,
        input: LinearInput,
        activation: Activation,
        residual_btd: Option<Tensor<3>>,
    ) -> Tensor<3> {
        let (gate_up_btf, down): (_, &dyn Projection) = match self {
            Self::Separate(SeparateMlp { gate_proj, up_proj, down_proj }) => {
                (fused_linear(input, &[gate_proj, up_proj], None), down_proj)
            }
            Self::Packed(PackedMlp { gate_up_proj, down_proj }) => {
                (fused_linear(input, &[gate_up_proj], None), down_proj)
            }
            Self::Numbered(NumberedMlp { w1, w3, w2 }) => {
                (fused_linear(input, &[w1, w3], None), w2)
            }
        };
        fused_linear(gated(gate_up_btf, activation), &[down], residual_btd)
    }

    /// The layers under their names in this module.
    pub(super) fn projections_mut(&mut self) -> Vec<NamedProjection<'_>> {
        let layers: Vec<(&str, &mut dyn Projection)> = match self {
            Self::Separate(SeparateMlp { gate_proj, up_proj, down_proj }) => {
                vec![("gate_proj", gate_proj), ("up_proj", up_proj), ("down_proj", down_proj)]
            }
            Self::Packed(PackedMlp { gate_up_proj, down_proj }) => {
                vec![("gate_up_proj", gate_up_proj), ("down_proj", down_proj)]
            }
            Self::Numbered(NumberedMlp { w1, w3, w2 }) => vec![("w1", w1), ("w3", w3), ("w2", w2)],
        };
        layers.into_iter().map(|(name, layer)| (name.to_owned(), layer)).collect()
    }
}

/// `activation(gate) · up` of gates and values side by side, for the next layer.
fn gated(gate_up_btf: Tensor<3>, kind: Activation) -> LinearInput {
    if kind == Activation::Silu {
        return LinearInput::SwiGlu(gate_up_btf);
    }
    let [b, t, width] = gate_up_btf.dims();
    let half = |start: usize| gate_up_btf.clone().slice([0..b, 0..t, start..start + width / 2]);
    let (gate, up) = (half(0), half(width / 2));
    let gate = match kind {
        Activation::Silu => kernels::silu(gate),
        Activation::GeluTanh => kernels::gelu(gate, GeluKind::Tanh),
        Activation::GeluExact => kernels::gelu(gate, GeluKind::Exact),
        Activation::Relu => activation::relu(gate),
    };
    LinearInput::Plain(gate * up)
}
