//! A block: attention and MLP, each after a norm and added to the residual stream.
//!
//! Fields are in the order of Hugging Face's modules, which is the order of checkpoints.

use burn::module::Module;
use burn::tensor::Tensor;
use kernels::{AttentionMask, LinearInput};
use nn::{
    HeadLayout, HeadTransforms, LayerCache, Linear, NamedProjection, Projection, RmsNorm, attend,
    fused_linear,
};

use super::RopeDecoderSpec;
use crate::Result;
use crate::build::Builder;
use crate::decoder;

/// The positions' rotary angles, and the mask of a block.
#[derive(Clone)]
pub(super) struct BlockContext {
    pub(super) cos_btc: Tensor<3>,
    pub(super) sin_btc: Tensor<3>,
    pub(super) mask: AttentionMask,
}

#[derive(Module, Debug)]
pub(super) struct Block {
    self_attn: SelfAttention,
    mlp: Mlp,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
}

#[derive(Module, Debug)]
struct SelfAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    #[module(skip)]
    heads: HeadLayout,
}

// Field names are checkpoint keys.
#[allow(clippy::struct_field_names)]
#[derive(Module, Debug)]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Block {
    pub(super) fn build(spec: &RopeDecoderSpec, from: &mut Builder) -> Result<Self> {
        let (d, eps) = (spec.hidden_size, spec.rms_norm_eps);
        Ok(Self {
            self_attn: SelfAttention::build(spec, &mut from.inside("self_attn"))?,
            mlp: Mlp::build(spec, &mut from.inside("mlp"))?,
            input_layernorm: from.rms_norm("input_layernorm", d, eps)?,
            post_attention_layernorm: from.rms_norm("post_attention_layernorm", d, eps)?,
        })
    }
}

impl decoder::Block for Block {
    type Context = BlockContext;

    fn forward(
        &self,
        x_btd: Tensor<3>,
        context: &BlockContext,
        cache: Option<(&mut LayerCache, usize)>,
    ) -> Tensor<3> {
        let normed = self.input_layernorm.linear_input(x_btd.clone());
        let x_btd = self.self_attn.forward(normed, x_btd, context, cache);
        self.mlp.forward(self.post_attention_layernorm.linear_input(x_btd.clone()), x_btd)
    }

    fn projections_mut(&mut self) -> Vec<NamedProjection<'_>> {
        let (attention, mlp) = (&mut self.self_attn, &mut self.mlp);
        let layers: [(&str, &mut dyn Projection); 7] = [
            ("self_attn.q_proj", &mut attention.q_proj),
            ("self_attn.k_proj", &mut attention.k_proj),
            ("self_attn.v_proj", &mut attention.v_proj),
            ("self_attn.o_proj", &mut attention.o_proj),
            ("mlp.gate_proj", &mut mlp.gate_proj),
            ("mlp.up_proj", &mut mlp.up_proj),
            ("mlp.down_proj", &mut mlp.down_proj),
        ];
        layers.into_iter().map(|(name, layer)| (name.to_owned(), layer)).collect()
    }
}

impl SelfAttention {
    fn build(spec: &RopeDecoderSpec, from: &mut Builder) -> Result<Self> {
        let (d, heads) = (spec.hidden_size, spec.heads);
        let (q, kv) = (heads.n_heads * heads.head_dim, heads.n_kv_heads * heads.head_dim);
        let mut linear = |name, d_in, d_out, bias| from.linear(name, d_in, d_out, bias);
        let q_proj = linear("q_proj", d, q, spec.qkv_bias)?;
        let k_proj = linear("k_proj", d, kv, spec.qkv_bias)?;
        let v_proj = linear("v_proj", d, kv, spec.qkv_bias)?;
        let o_proj = linear("o_proj", q, d, spec.o_bias)?;
        let mut norm = |name| {
            if spec.qk_norm {
                from.rms_norm(name, heads.head_dim, spec.rms_norm_eps).map(Some)
            } else {
                Ok(None)
            }
        };
        let (q_norm, k_norm) = (norm("q_norm")?, norm("k_norm")?);
        Ok(Self { q_proj, k_proj, v_proj, o_proj, q_norm, k_norm, heads })
    }

    /// Adds the attention's output to the residual stream `x`.
    fn forward(
        &self,
        input: LinearInput,
        x_btd: Tensor<3>,
        context: &BlockContext,
        cache: Option<(&mut LayerCache, usize)>,
    ) -> Tensor<3> {
        let qkv_btw = fused_linear(input, &[&self.q_proj, &self.k_proj, &self.v_proj], None);
        let transforms = HeadTransforms {
            norms: self.q_norm.as_ref().zip(self.k_norm.as_ref()),
            rope: Some((context.cos_btc.clone(), context.sin_btc.clone())),
        };
        let joined_btd = attend(&self.heads, qkv_btw, transforms, &context.mask, cache);
        fused_linear(LinearInput::Plain(joined_btd), &[&self.o_proj], Some(x_btd))
    }
}

impl Mlp {
    fn build(spec: &RopeDecoderSpec, from: &mut Builder) -> Result<Self> {
        let (d, inner, bias) = (spec.hidden_size, spec.intermediate_size, spec.mlp_bias);
        Ok(Self {
            gate_proj: from.linear("gate_proj", d, inner, bias)?,
            up_proj: from.linear("up_proj", d, inner, bias)?,
            down_proj: from.linear("down_proj", inner, d, bias)?,
        })
    }

    /// Adds the MLP's output to the residual stream `x`.
    fn forward(&self, input: LinearInput, x_btd: Tensor<3>) -> Tensor<3> {
        let gate_up_btf = fused_linear(input, &[&self.gate_proj, &self.up_proj], None);
        fused_linear(LinearInput::SwiGlu(gate_up_btf), &[&self.down_proj], Some(x_btd))
    }
}
