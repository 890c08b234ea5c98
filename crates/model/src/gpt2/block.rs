//! One block: attention and MLP, each behind a norm and added to the residual stream.
//!
//! Fields stand in the order of Hugging Face's modules, which is the order of checkpoints.

use arch::{Activation, Gpt2Config};
use burn::module::Module;
use burn::tensor::{Tensor, activation};
use kernels::{AttentionMask, GeluKind};
use nn::{Conv1d, HeadLayout, LayerCache, LayerNorm, Projection, attend, pin_masks};

use crate::Result;
use crate::build::Builder;

#[derive(Module, Debug)]
pub(super) struct Block {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct Attention {
    c_attn: Conv1d,
    c_proj: Conv1d,
    #[module(skip)]
    heads: HeadLayout,
}

#[derive(Module, Debug)]
struct Mlp {
    c_fc: Conv1d,
    c_proj: Conv1d,
    #[module(skip)]
    activation: Activation,
}

impl Block {
    pub(super) fn build(config: &Gpt2Config, layer: usize, from: &mut Builder) -> Result<Self> {
        let (d, bias, eps) = (config.n_embd, config.bias, config.layer_norm_epsilon);
        Ok(Self {
            ln_1: from.layer_norm("ln_1", d, bias, eps)?,
            attn: Attention::build(config, layer, &mut from.inside("attn"))?,
            ln_2: from.layer_norm("ln_2", d, bias, eps)?,
            mlp: Mlp::build(config, &mut from.inside("mlp"))?,
        })
    }

    pub(super) fn projections_mut(&mut self) -> [(&'static str, &mut dyn Projection); 4] {
        [
            ("attn.c_attn", &mut self.attn.c_attn),
            ("attn.c_proj", &mut self.attn.c_proj),
            ("mlp.c_fc", &mut self.mlp.c_fc),
            ("mlp.c_proj", &mut self.mlp.c_proj),
        ]
    }

    /// [`Self::forward`] without a cache, of which a graph keeps `x` alone.
    pub(super) fn recomputed(&self, x_btd: Tensor<3>, mask: &AttentionMask) -> Tensor<3> {
        let mut block = self.clone();
        pin_masks(block.projections_mut().map(|(_, layer)| layer));
        let mask = mask.clone();
        kernels::recompute(block, x_btd, move |block, x_btd| block.forward(x_btd, &mask, None))
    }

    pub(super) fn forward(
        &self,
        x_btd: Tensor<3>,
        mask: &AttentionMask,
        cache: Option<(&mut LayerCache, usize)>,
    ) -> Tensor<3> {
        let attended_btd = self.attn.forward(self.ln_1.forward(x_btd.clone()), mask, cache);
        let (normed_btd, x_btd) = self.ln_2.add_forward(attended_btd, x_btd);
        x_btd + self.mlp.forward(normed_btd)
    }
}

impl Attention {
    fn build(config: &Gpt2Config, layer: usize, from: &mut Builder) -> Result<Self> {
        let d = config.n_embd;
        Ok(Self {
            c_attn: from.conv1d("c_attn", d, 3 * d, config.bias)?,
            c_proj: from.conv1d("c_proj", d, d, config.bias)?,
            heads: HeadLayout {
                n_heads: config.n_head,
                n_kv_heads: config.n_head,
                head_dim: d / config.n_head,
                scale: config.attention_scale(layer),
            },
        })
    }

    fn forward(
        &self,
        x_btd: Tensor<3>,
        mask: &AttentionMask,
        cache: Option<(&mut LayerCache, usize)>,
    ) -> Tensor<3> {
        let qkv_bt3d = self.c_attn.forward(x_btd);
        let joined_btd = attend(&self.heads, qkv_bt3d, None, mask, cache);
        self.c_proj.forward(joined_btd)
    }
}

impl Mlp {
    fn build(config: &Gpt2Config, from: &mut Builder) -> Result<Self> {
        let (d, inner) = (config.n_embd, config.n_inner);
        Ok(Self {
            c_fc: from.conv1d("c_fc", d, inner, config.bias)?,
            c_proj: from.conv1d("c_proj", inner, d, config.bias)?,
            activation: config.activation_function,
        })
    }

    fn forward(&self, x_btd: Tensor<3>) -> Tensor<3> {
        let inner = self.c_fc.forward(x_btd);
        self.c_proj.forward(match self.activation {
            Activation::GeluTanh => kernels::gelu(inner, GeluKind::Tanh),
            Activation::GeluExact => kernels::gelu(inner, GeluKind::Exact),
            Activation::Relu => activation::relu(inner),
            Activation::Silu => kernels::silu(inner),
        })
    }
}
