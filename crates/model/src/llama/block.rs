//! One block: attention and MLP, each behind a norm and added to the residual stream.
//!
//! Fields stand in the order of Hugging Face's modules, which is the order of checkpoints.

use arch::LlamaConfig;
use burn::module::Module;
use burn::tensor::Tensor;
use kernels::{AttentionMask, LinearInput};
use nn::{HeadLayout, LayerCache, Linear, Projection, RmsNorm, attend, fused_linear, pin_masks};

use crate::Result;
use crate::build::Builder;

/// What all blocks share for one batch.
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
    pub(super) fn build(config: &LlamaConfig, from: &mut Builder) -> Result<Self> {
        let (d, eps) = (config.hidden_size, config.rms_norm_eps);
        Ok(Self {
            self_attn: SelfAttention::build(config, &mut from.inside("self_attn"))?,
            mlp: Mlp::build(config, &mut from.inside("mlp"))?,
            input_layernorm: from.rms_norm("input_layernorm", d, eps)?,
            post_attention_layernorm: from.rms_norm("post_attention_layernorm", d, eps)?,
        })
    }

    pub(super) fn projections_mut(&mut self) -> [(&'static str, &mut dyn Projection); 7] {
        let (attention, mlp) = (&mut self.self_attn, &mut self.mlp);
        [
            ("self_attn.q_proj", &mut attention.q_proj),
            ("self_attn.k_proj", &mut attention.k_proj),
            ("self_attn.v_proj", &mut attention.v_proj),
            ("self_attn.o_proj", &mut attention.o_proj),
            ("mlp.gate_proj", &mut mlp.gate_proj),
            ("mlp.up_proj", &mut mlp.up_proj),
            ("mlp.down_proj", &mut mlp.down_proj),
        ]
    }

    /// [`Self::forward`] without a cache, of which a graph keeps `x` alone.
    pub(super) fn recomputed(&self, x_btd: Tensor<3>, context: &BlockContext) -> Tensor<3> {
        let mut block = self.clone();
        pin_masks(block.projections_mut().map(|(_, layer)| layer));
        let context = context.clone();
        kernels::recompute(block, x_btd, move |block, x_btd| block.forward(x_btd, &context, None))
    }

    pub(super) fn forward(
        &self,
        x_btd: Tensor<3>,
        context: &BlockContext,
        cache: Option<(&mut LayerCache, usize)>,
    ) -> Tensor<3> {
        let read = self.input_layernorm.read(x_btd.clone());
        let x_btd = self.self_attn.forward(read, x_btd, context, cache);
        self.mlp.forward(self.post_attention_layernorm.read(x_btd.clone()), x_btd)
    }
}

impl SelfAttention {
    fn build(config: &LlamaConfig, from: &mut Builder) -> Result<Self> {
        let (d, bias) = (config.hidden_size, config.attention_bias);
        let (q, kv) = (config.query_width(), config.key_value_width());
        Ok(Self {
            q_proj: from.linear("q_proj", d, q, bias)?,
            k_proj: from.linear("k_proj", d, kv, bias)?,
            v_proj: from.linear("v_proj", d, kv, bias)?,
            o_proj: from.linear("o_proj", q, d, bias)?,
            heads: HeadLayout {
                n_heads: config.num_attention_heads,
                n_kv_heads: config.num_key_value_heads,
                head_dim: config.head_dim,
                scale: (config.head_dim as f64).powf(-0.5),
            },
        })
    }

    /// What the attention adds to the residual stream `x`, added to it.
    fn forward(
        &self,
        read: LinearInput,
        x_btd: Tensor<3>,
        context: &BlockContext,
        cache: Option<(&mut LayerCache, usize)>,
    ) -> Tensor<3> {
        let heads = &self.heads;
        let qkv_btw = fused_linear(read, &[&self.q_proj, &self.k_proj, &self.v_proj], None);
        let rope = Some((context.cos_btc.clone(), context.sin_btc.clone()));
        let joined_btd = attend(heads, qkv_btw, rope, &context.mask, cache);
        fused_linear(LinearInput::Plain(joined_btd), &[&self.o_proj], Some(x_btd))
    }
}

impl Mlp {
    fn build(config: &LlamaConfig, from: &mut Builder) -> Result<Self> {
        let (d, inner, bias) = (config.hidden_size, config.intermediate_size, config.mlp_bias);
        Ok(Self {
            gate_proj: from.linear("gate_proj", d, inner, bias)?,
            up_proj: from.linear("up_proj", d, inner, bias)?,
            down_proj: from.linear("down_proj", inner, d, bias)?,
        })
    }

    /// What the MLP adds to the residual stream `x`, added to it.
    fn forward(&self, read: LinearInput, x_btd: Tensor<3>) -> Tensor<3> {
        let gate_up_btf = fused_linear(read, &[&self.gate_proj, &self.up_proj], None);
        fused_linear(LinearInput::SwiGlu(gate_up_btf), &[&self.down_proj], Some(x_btd))
    }
}
