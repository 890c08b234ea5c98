//! The decoder that most families are variants of: RMSNorm, RoPE, grouped key-value heads, gated MLP or experts.
//!
//! [`arch::DecoderConfig`] describes a model; what a family lacks is not computed.

mod attention;
mod block;
mod context;
mod experts;
mod mlp;
mod rope;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use arch::{DecoderConfig, ExpertsConfig, LayerConfig, ModelConfig};
use burn::module::Module;
use burn::tensor::Tensor;
use kernels::AttentionMask;
use nn::{Embedding, Input, KvCache, NamedProjection, PAD_SEGMENT, RmsNorm};

use self::block::Block;
use self::context::BlockContext;
use self::rope::Rope;
use crate::build::Builder;
use crate::decoder::{Decoder, Run, projections_of, run_blocks};
use crate::{Output, Result};

/// First part of parameter names.
pub(crate) const PREFIX: &str = "model";

/// A decoder with rotary positions.
#[derive(Module, Debug)]
pub struct RopeDecoder {
    embed_tokens: Embedding,
    layers: Vec<Block>,
    norm: RmsNorm,
    #[module(skip)]
    ropes: Vec<Rope>,
    #[module(skip)]
    layer_configs: Vec<LayerConfig>,
    #[module(skip)]
    experts: Option<ExpertsConfig>,
    #[module(skip)]
    embedding_multiplier: f64,
    #[module(skip)]
    soft_cap: Option<f64>,
    #[module(skip)]
    recomputes: bool,
}

/// An RMSNorm as the family computes it.
fn norm(config: &DecoderConfig, name: &str, width: usize, from: &mut Builder) -> Result<RmsNorm> {
    let norm = from.rms_norm(name, width, config.rms_norm_eps)?;
    Ok(if config.norm_adds_one { norm.adding_one() } else { norm })
}

impl RopeDecoder {
    pub(crate) fn build(config: &DecoderConfig, from: &mut Builder) -> Result<Self> {
        let embed_tokens = from.embedding("embed_tokens", config.vocab_size, config.hidden_size)?;
        let layers = config.layers.iter().enumerate();
        let layers = layers
            .map(|(idx, layer)| {
                Block::build(config, layer, &mut from.inside(&format!("layers.{idx}")))
            })
            .collect::<Result<_>>()?;
        let norm = norm(config, "norm", config.hidden_size, from)?;
        let n_positions = ModelConfig::Decoder(config.clone()).max_positions();
        let rope = |rope| Rope::build(rope, config.head_dim, n_positions, from);
        Ok(Self {
            embed_tokens,
            layers,
            norm,
            ropes: config.ropes.iter().map(rope).collect(),
            layer_configs: config.layers.clone(),
            experts: config.experts,
            embedding_multiplier: config.embedding_multiplier,
            soft_cap: config.attn_logit_softcapping,
            recomputes: false,
        })
    }

    /// The context of each block; blocks of one window share a mask, blocks of one rotary embedding its angles. With a
    /// cache, masks are over the keys that it returns.
    fn contexts(
        &self,
        input: &Input,
        mask: AttentionMask,
        cache: Option<&KvCache>,
        is_real: &Arc<Vec<bool>>,
    ) -> Vec<BlockContext> {
        let angles: Vec<_> = self.ropes.iter().map(|rope| rope.angles(input)).collect();
        let mask = mask.with_soft_cap(self.soft_cap);
        let mut masks: BTreeMap<Option<usize>, AttentionMask> = BTreeMap::new();
        let of_layer = |(idx, layer): (usize, &LayerConfig)| {
            let window = layer.window;
            let mask = masks.entry(window).or_insert_with(|| {
                let mask = mask.clone().with_window(window);
                match cache {
                    Some(cache) => mask.over_last_keys(cache.n_keys(idx)),
                    None => mask,
                }
            });
            BlockContext {
                rope: layer.rope.map(|rope| angles[rope].clone()),
                mask: mask.clone(),
                is_real: is_real.clone(),
                recomputes: self.recomputes,
            }
        };
        self.layer_configs.iter().enumerate().map(of_layer).collect()
    }

    /// Tells tokens from padding, for the router of a mixture of experts.
    fn is_real(&self, input: &Input) -> Arc<Vec<bool>> {
        if self.experts.is_none() {
            return Arc::default();
        }
        let segments = input.segments_bt.clone().into_data().convert::<i32>();
        Arc::new(segments.iter::<i32>().map(|segment| segment != PAD_SEGMENT).collect())
    }
}

impl Decoder for RopeDecoder {
    fn run(
        &self,
        input: &Input,
        mut cache: Option<&mut KvCache>,
        observe: &mut dyn FnMut(&Tensor<3>),
    ) -> Output {
        let mask = input.causal_mask(cache.as_deref_mut());
        let is_real = self.is_real(input);
        let contexts = self.contexts(input, mask, cache.as_deref(), &is_real);
        let x_btd = input.embed(&self.embed_tokens);
        let x_btd = match self.embedding_multiplier {
            1.0 => x_btd,
            multiplier => x_btd.mul_scalar(multiplier),
        };
        let run = Run { contexts: &contexts, cache, recomputes: self.recomputes, observe };
        let (x_btd, routing) = run_blocks(&self.layers, x_btd, run);
        let aux_loss = self
            .experts
            .as_ref()
            .and_then(|experts| experts::aux_loss(&routing, &is_real, experts));
        Output { hidden_btd: self.norm.forward(x_btd), aux_loss, routing }
    }

    fn recompute_blocks(&mut self, on: bool) {
        self.recomputes = on;
    }

    fn embedding(&self) -> &Embedding {
        &self.embed_tokens
    }

    fn embedding_mut(&mut self) -> (&'static str, &mut Embedding) {
        ("embed_tokens", &mut self.embed_tokens)
    }

    fn projections_mut(&mut self) -> Vec<NamedProjection<'_>> {
        projections_of("layers", &mut self.layers)
    }
}
