//! A block: attention and MLP or experts, each with norms before or after and added to the residual stream.
//!
//! Fields have the names of Hugging Face's modules, in the order of the parameter table in arch.

use arch::{Activation, DecoderConfig, ExpertNaming, LayerConfig, NormPlacement};
use burn::module::Module;
use burn::tensor::Tensor;
use kernels::LinearInput;
use nn::{LayerCache, NamedProjection, RmsNorm, Routing, pin_dropout, prefixed};

use super::attention::SelfAttention;
use super::context::BlockContext;
use super::experts::Experts;
use super::mlp::{Mlp, MlpNames};
use super::norm;
use crate::Result;
use crate::build::Builder;
use crate::decoder;

#[derive(Module, Debug)]
pub(super) struct Block {
    self_attn: SelfAttention,
    mlp: Option<FeedForward>,
    block_sparse_moe: Option<Experts>,
    input_layernorm: Option<RmsNorm>,
    post_attention_layernorm: Option<RmsNorm>,
    pre_feedforward_layernorm: Option<RmsNorm>,
    post_feedforward_layernorm: Option<RmsNorm>,
    #[module(skip)]
    norm_placement: NormPlacement,
    #[module(skip)]
    hidden_act: Activation,
    #[module(skip)]
    residual_multiplier: f64,
}

/// The second half of a block. The alternatives have no name of their own in checkpoints.
// A model has one of these per block, so their size on the stack does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
enum FeedForward {
    Dense(Mlp),
    Sparse(Experts),
}

impl Block {
    pub(super) fn build(
        config: &DecoderConfig,
        layer: &LayerConfig,
        from: &mut Builder,
    ) -> Result<Self> {
        let self_attn = SelfAttention::build(config, &mut from.inside("self_attn"))?;
        let (mlp, block_sparse_moe) = feed_forward(config, layer, from)?;
        let has_pre = config.norm_placement != NormPlacement::After;
        let has_post = config.norm_placement != NormPlacement::Before;
        let has_both = config.norm_placement == NormPlacement::Both;
        let mut optional = |name: &str, is_present: bool| {
            is_present.then(|| norm(config, name, config.hidden_size, from)).transpose()
        };
        Ok(Self {
            self_attn,
            mlp,
            block_sparse_moe,
            input_layernorm: optional("input_layernorm", has_pre)?,
            post_attention_layernorm: optional("post_attention_layernorm", true)?,
            pre_feedforward_layernorm: optional("pre_feedforward_layernorm", has_both)?,
            post_feedforward_layernorm: optional("post_feedforward_layernorm", has_post)?,
            norm_placement: config.norm_placement,
            hidden_act: config.hidden_act,
            residual_multiplier: config.residual_multiplier,
        })
    }

    /// The norm before the MLP, and those after attention and after the MLP.
    fn norms(&self) -> [Option<&RmsNorm>; 3] {
        let after_attention = self.post_attention_layernorm.as_ref();
        match self.norm_placement {
            NormPlacement::Before => [after_attention, None, None],
            NormPlacement::After => {
                [None, after_attention, self.post_feedforward_layernorm.as_ref()]
            }
            NormPlacement::Both => [
                self.pre_feedforward_layernorm.as_ref(),
                after_attention,
                self.post_feedforward_layernorm.as_ref(),
            ],
        }
    }

    /// The whole block, where norms add what comes before them to the residual stream.
    fn forward_in_norms(
        &self,
        x_btd: &Tensor<3>,
        context: &BlockContext,
        cache: &mut Option<(&mut LayerCache, usize)>,
    ) -> Option<Tensor<3>> {
        let [before, None, None] = self.norms() else { return None };
        let (first, second) = self.input_layernorm.as_ref().zip(before)?;
        let Some(FeedForward::Dense(mlp)) = &self.mlp else { return None };
        if self.residual_multiplier != 1.0 || !kernels::norms_add_residuals(x_btd) {
            return None;
        }
        let [input_btd, x_btd] = first.forward_residual(x_btd.clone(), None);
        let input = LinearInput::Plain(input_btd);
        let attended_btd = self.self_attn.forward(input, None, context, cache.take());
        let [input_btd, x_btd] = second.forward_residual(x_btd, Some(attended_btd));
        Some(mlp.forward(LinearInput::Plain(input_btd), self.hidden_act, Some(x_btd)))
    }

    /// Adds attention to the residual stream.
    fn attention(
        &self,
        x_btd: Tensor<3>,
        context: &BlockContext,
        cache: Option<(&mut LayerCache, usize)>,
    ) -> Tensor<3> {
        let input = normed(self.input_layernorm.as_ref(), &x_btd);
        let [_, after, _] = self.norms();
        self.add(x_btd, after, |residual_btd| {
            self.self_attn.forward(input, residual_btd, context, cache)
        })
    }

    /// Adds the MLP or the experts to the residual stream.
    fn feed_forward(
        &self,
        x_btd: Tensor<3>,
        context: &BlockContext,
    ) -> (Tensor<3>, Option<Routing>) {
        let [before, _, after] = self.norms();
        let input = normed(before, &x_btd);
        if let Some(experts) = self.experts() {
            let (out_btd, routing) = experts.forward(input.tensor(), context);
            let add = |residual_btd: Option<Tensor<3>>| match residual_btd {
                Some(residual_btd) => out_btd + residual_btd,
                None => out_btd,
            };
            return (self.add(x_btd, after, add), Some(routing));
        }
        let Some(FeedForward::Dense(mlp)) = &self.mlp else { return (x_btd, None) };
        let add = |residual_btd| mlp.forward(input, self.hidden_act, residual_btd);
        (self.add(x_btd, after, add), None)
    }

    /// `x + multiplier · norm(half)`. A half without both adds `x` itself, in its last product.
    fn add(
        &self,
        x_btd: Tensor<3>,
        after: Option<&RmsNorm>,
        half: impl FnOnce(Option<Tensor<3>>) -> Tensor<3>,
    ) -> Tensor<3> {
        let is_scaled = self.residual_multiplier != 1.0;
        if after.is_none() && !is_scaled {
            return half(Some(x_btd));
        }
        let out_btd = half(None);
        let out_btd = match after {
            Some(norm) => norm.forward(out_btd),
            None => out_btd,
        };
        let out_btd =
            if is_scaled { out_btd.mul_scalar(self.residual_multiplier) } else { out_btd };
        x_btd + out_btd
    }

    fn experts(&self) -> Option<&Experts> {
        match &self.mlp {
            Some(FeedForward::Sparse(experts)) => Some(experts),
            Some(FeedForward::Dense(_)) | None => self.block_sparse_moe.as_ref(),
        }
    }

    /// The attention of a sparse block, recomputed in the backward pass.
    fn recomputed_attention(&self, x_btd: Tensor<3>, context: &BlockContext) -> Tensor<3> {
        let mut half = Self { mlp: None, block_sparse_moe: None, ..self.clone() };
        pin_dropout(half.self_attn.projections_mut().into_iter().map(|(_, layer)| layer));
        let context = context.clone();
        kernels::recompute(half, x_btd, move |half, x_btd| half.attention(x_btd, &context, None))
    }
}

impl decoder::Block for Block {
    type Context = BlockContext;

    fn forward(
        &self,
        x_btd: Tensor<3>,
        context: &BlockContext,
        mut cache: Option<(&mut LayerCache, usize)>,
    ) -> (Tensor<3>, Option<Routing>) {
        if let Some(x_btd) = self.forward_in_norms(&x_btd, context, &mut cache) {
            return (x_btd, None);
        }
        let x_btd = if context.recomputes && self.is_sparse() && cache.is_none() {
            self.recomputed_attention(x_btd, context)
        } else {
            self.attention(x_btd, context, cache)
        };
        self.feed_forward(x_btd, context)
    }

    fn is_sparse(&self) -> bool {
        self.experts().is_some()
    }

    fn projections_mut(&mut self) -> Vec<NamedProjection<'_>> {
        let mut layers = prefixed("self_attn", self.self_attn.projections_mut());
        match &mut self.mlp {
            Some(FeedForward::Dense(mlp)) => layers.extend(prefixed("mlp", mlp.projections_mut())),
            Some(FeedForward::Sparse(experts)) => {
                layers.extend(prefixed("mlp", experts.projections_mut()));
            }
            None => {}
        }
        if let Some(experts) = &mut self.block_sparse_moe {
            layers.extend(prefixed("block_sparse_moe", experts.projections_mut()));
        }
        layers
    }
}

/// The input of a half: the norm of `x`, computed by the layers that read it, or `x` itself.
fn normed(norm: Option<&RmsNorm>, x_btd: &Tensor<3>) -> LinearInput {
    match norm {
        Some(norm) => norm.linear_input(x_btd.clone()),
        None => LinearInput::Plain(x_btd.clone()),
    }
}

/// The second half of a block under the name `mlp`, or under `block_sparse_moe`.
fn feed_forward(
    config: &DecoderConfig,
    layer: &LayerConfig,
    from: &mut Builder,
) -> Result<(Option<FeedForward>, Option<Experts>)> {
    match config.experts.as_ref().filter(|_| layer.is_sparse) {
        None => {
            let names = if config.is_mlp_packed { MlpNames::Packed } else { MlpNames::Separate };
            let (d, inner, bias) = (config.hidden_size, config.intermediate_size, config.mlp_bias);
            let mlp = Mlp::build(names, d, inner, bias, &mut from.inside("mlp"))?;
            Ok((Some(FeedForward::Dense(mlp)), None))
        }
        Some(experts) => match experts.naming {
            ExpertNaming::Mlp => {
                let experts = Experts::build(config, experts, &mut from.inside("mlp"))?;
                Ok((Some(FeedForward::Sparse(experts)), None))
            }
            ExpertNaming::BlockSparse => {
                let from = &mut from.inside("block_sparse_moe");
                Ok((None, Some(Experts::build(config, experts, from)?)))
            }
        },
    }
}
