//! Attention of a block: projections, separate or packed, and norms of queries and keys.

use arch::{DecoderConfig, QkNorm};
use burn::module::Module;
use burn::tensor::Tensor;
use kernels::LinearInput;
use nn::{
    HeadLayout, HeadTransforms, LayerCache, Linear, NamedProjection, Projection, RmsNorm, attend,
    fused_linear,
};

use super::block::BlockContext;
use super::norm;
use crate::Result;
use crate::build::Builder;

#[derive(Module, Debug)]
pub(super) struct SelfAttention {
    qkv: Qkv,
    o_proj: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    #[module(skip)]
    heads: HeadLayout,
}

/// The projections of queries, keys and values. The alternatives have no name of their own in checkpoints.
// A model has one of these per block, so their size on the stack does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
enum Qkv {
    Separate(SeparateQkv),
    Packed(PackedQkv),
}

// Field names are checkpoint keys.
#[allow(clippy::struct_field_names)]
#[derive(Module, Debug)]
struct SeparateQkv {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
}

#[derive(Module, Debug)]
struct PackedQkv {
    qkv_proj: Linear,
}

impl Qkv {
    fn build(config: &DecoderConfig, from: &mut Builder) -> Result<Self> {
        let (d, bias) = (config.hidden_size, config.qkv_bias);
        let (q, kv) = (config.query_width(), config.key_value_width());
        Ok(if config.is_qkv_packed {
            Self::Packed(PackedQkv { qkv_proj: from.linear("qkv_proj", d, q + 2 * kv, bias)? })
        } else {
            Self::Separate(SeparateQkv {
                q_proj: from.linear("q_proj", d, q, bias)?,
                k_proj: from.linear("k_proj", d, kv, bias)?,
                v_proj: from.linear("v_proj", d, kv, bias)?,
            })
        })
    }

    /// Queries, keys and values of each position, side by side.
    fn forward(&self, input: LinearInput) -> Tensor<3> {
        match self {
            Self::Separate(SeparateQkv { q_proj, k_proj, v_proj }) => {
                fused_linear(input, &[q_proj, k_proj, v_proj], None)
            }
            Self::Packed(PackedQkv { qkv_proj }) => fused_linear(input, &[qkv_proj], None),
        }
    }

    fn projections_mut(&mut self) -> Vec<(&'static str, &mut dyn Projection)> {
        match self {
            Self::Separate(SeparateQkv { q_proj, k_proj, v_proj }) => {
                vec![("q_proj", q_proj), ("k_proj", k_proj), ("v_proj", v_proj)]
            }
            Self::Packed(PackedQkv { qkv_proj }) => vec![("qkv_proj", qkv_proj)],
        }
    }
}

impl SelfAttention {
    pub(super) fn build(config: &DecoderConfig, from: &mut Builder) -> Result<Self> {
        let (d, q, kv) = (config.hidden_size, config.query_width(), config.key_value_width());
        let qkv = Qkv::build(config, from)?;
        let o_proj = from.linear("o_proj", q, d, config.o_bias)?;
        let widths = match config.qk_norm {
            QkNorm::None => None,
            QkNorm::Heads => Some([config.head_dim; 2]),
            QkNorm::Whole => Some([q, kv]),
        };
        let (q_norm, k_norm) = match widths {
            None => (None, None),
            Some([q, k]) => {
                (Some(norm(config, "q_norm", q, from)?), Some(norm(config, "k_norm", k, from)?))
            }
        };
        let heads = HeadLayout {
            n_heads: config.num_attention_heads,
            n_kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            scale: config.score_scale(),
        };
        Ok(Self { qkv, o_proj, q_norm, k_norm, heads })
    }

    /// The attention's output, added to `residual` if there is one.
    pub(super) fn forward(
        &self,
        input: LinearInput,
        residual_btd: Option<Tensor<3>>,
        context: &BlockContext,
        cache: Option<(&mut LayerCache, usize)>,
    ) -> Tensor<3> {
        let qkv_btw = self.qkv.forward(input);
        let transforms = HeadTransforms {
            norms: self.q_norm.as_ref().zip(self.k_norm.as_ref()),
            rope: context.rope.clone(),
        };
        let joined_btd = attend(&self.heads, qkv_btw, transforms, &context.mask, cache);
        fused_linear(LinearInput::Plain(joined_btd), &[&self.o_proj], residual_btd)
    }

    pub(super) fn projections_mut(&mut self) -> Vec<NamedProjection<'_>> {
        let mut layers = self.qkv.projections_mut();
        layers.push(("o_proj", &mut self.o_proj));
        layers.into_iter().map(|(name, layer)| (name.to_owned(), layer)).collect()
    }
}
