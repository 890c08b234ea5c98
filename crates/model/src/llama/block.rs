//! One block: attention and MLP, each behind a norm and added to the residual stream.
//!
//! Fields stand in the order of Hugging Face's modules, which is the order of checkpoints.

use arch::LlamaConfig;
use burn::module::Module;
use burn::tensor::Tensor;
use kernels::AttentionMask;
use nn::{HeadLayout, LayerCache, Linear, Projection, RmsNorm, attend};

use crate::Result;
use crate::build::Builder;

/// What all blocks share for one batch.
pub(super) struct Reading {
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

    pub(super) fn forward(
        &self,
        x_btd: Tensor<3>,
        reading: &Reading,
        cache: Option<(&mut LayerCache, usize)>,
    ) -> Tensor<3> {
        let normed_btd = self.input_layernorm.forward(x_btd.clone());
        let attended_btd = self.self_attn.forward(normed_btd, reading, cache);
        let (normed_btd, x_btd) = self.post_attention_layernorm.add_forward(attended_btd, x_btd);
        x_btd + self.mlp.forward(normed_btd)
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

    fn forward(
        &self,
        x_btd: Tensor<3>,
        reading: &Reading,
        cache: Option<(&mut LayerCache, usize)>,
    ) -> Tensor<3> {
        let heads = &self.heads;
        let (cos_btc, sin_btc) = (&reading.cos_btc, &reading.sin_btc);
        let q_bthk = heads.split(self.q_proj.forward(x_btd.clone()), heads.n_heads);
        let k_btgk = heads.split(self.k_proj.forward(x_btd.clone()), heads.n_kv_heads);
        let v_btgk = heads.split(self.v_proj.forward(x_btd), heads.n_kv_heads);
        let q_bthk = kernels::rope(q_bthk, cos_btc.clone(), sin_btc.clone());
        let k_btgk = kernels::rope(k_btgk, cos_btc.clone(), sin_btc.clone());
        let joined_btd = attend(heads, q_bthk, k_btgk, v_btgk, &reading.mask, cache);
        self.o_proj.forward(joined_btd)
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

    fn forward(&self, x_btd: Tensor<3>) -> Tensor<3> {
        let gate = self.gate_proj.forward(x_btd.clone());
        self.down_proj.forward(kernels::swiglu(gate, self.up_proj.forward(x_btd)))
    }
}
