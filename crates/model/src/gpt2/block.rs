//! A block: attention and MLP, each after a norm and added to the residual stream.
//!
//! Fields are in the order of Hugging Face's modules, which is the order of checkpoints.

use arch::{Activation, Gpt2Config};
use burn::module::Module;
use burn::tensor::{Tensor, activation};
use kernels::{AttentionMask, GeluKind, LinearInput};
use nn::{
    Conv1d, HeadLayout, HeadTransforms, LayerCache, LayerNorm, NamedProjection, Projection,
    Routing, attend, fused_linear,
};

use crate::Result;
use crate::build::Builder;
use crate::decoder;

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
}

impl decoder::Block for Block {
    type Context = AttentionMask;

    fn forward(
        &self,
        x_btd: Tensor<3>,
        mask: &AttentionMask,
        cache: Option<(&mut LayerCache, usize)>,
    ) -> (Tensor<3>, Option<Routing>) {
        let x_btd = self.attn.forward(self.ln_1.linear_input(x_btd.clone()), x_btd, mask, cache);
        (self.mlp.forward(self.ln_2.linear_input(x_btd.clone()), x_btd), None)
    }

    fn projections_mut(&mut self) -> Vec<NamedProjection<'_>> {
        let layers: [(&str, &mut dyn Projection); 4] = [
            ("attn.c_attn", &mut self.attn.c_attn),
            ("attn.c_proj", &mut self.attn.c_proj),
            ("mlp.c_fc", &mut self.mlp.c_fc),
            ("mlp.c_proj", &mut self.mlp.c_proj),
        ];
        layers.into_iter().map(|(name, layer)| (name.to_owned(), layer)).collect()
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

    /// Adds the attention's output to the residual stream `x`.
    fn forward(
        &self,
        input: LinearInput,
        x_btd: Tensor<3>,
        mask: &AttentionMask,
        cache: Option<(&mut LayerCache, usize)>,
    ) -> Tensor<3> {
        let qkv_bt3d = fused_linear(input, &[&self.c_attn], None);
        let joined_btd = attend(&self.heads, qkv_bt3d, HeadTransforms::default(), mask, cache);
        fused_linear(LinearInput::Plain(joined_btd), &[&self.c_proj], Some(x_btd))
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

    /// Adds the MLP's output to the residual stream `x`.
    fn forward(&self, input: LinearInput, x_btd: Tensor<3>) -> Tensor<3> {
        let inner_btf = fused_linear(input, &[&self.c_fc], None);
        let input = match self.activation {
            Activation::GeluTanh => LinearInput::GeluTanh(inner_btf),
            Activation::GeluExact => LinearInput::Plain(kernels::gelu(inner_btf, GeluKind::Exact)),
            Activation::Relu => LinearInput::Plain(activation::relu(inner_btf)),
            Activation::Silu => LinearInput::Plain(kernels::silu(inner_btf)),
        };
        fused_linear(input, &[&self.c_proj], Some(x_btd))
    }
}
