//! The decoder that most families are variants of: RMSNorm before each sublayer, RoPE, grouped key-value heads, SwiGLU.
//!
//! A family gives a [`RopeDecoderSpec`]; its config and parameter table are in arch.

mod block;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use arch::RopeParameters;
use burn::module::Module;
use burn::tensor::Tensor;
use kernels::AttentionMask;
use nn::{Embedding, HeadLayout, Input, KvCache, NamedProjection, RmsNorm, RopeTables};

use self::block::{Block, BlockContext};
use crate::build::Builder;
use crate::decoder::{Decoder, projections_of, run_blocks};
use crate::{Output, Result};

/// Sizes and choices in which families differ.
#[derive(Clone, Debug)]
pub(crate) struct RopeDecoderSpec {
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
    /// Width between gate, up and down projection.
    pub(crate) intermediate_size: usize,
    pub(crate) heads: HeadLayout,
    /// The attention window of each block; `None`: all earlier positions.
    pub(crate) windows: Vec<Option<usize>>,
    pub(crate) rms_norm_eps: f64,
    /// Whether each query head and each key head has an RMSNorm before the rotation.
    pub(crate) qk_norm: bool,
    pub(crate) qkv_bias: bool,
    pub(crate) o_bias: bool,
    pub(crate) mlp_bias: bool,
    pub(crate) rope: RopeParameters,
    pub(crate) n_positions: usize,
}

/// A decoder with rotary positions.
#[derive(Module, Debug)]
pub struct RopeDecoder {
    embed_tokens: Embedding,
    layers: Vec<Block>,
    norm: RmsNorm,
    #[module(skip)]
    rope: RopeTables,
    #[module(skip)]
    windows: Vec<Option<usize>>,
    #[module(skip)]
    recomputes: bool,
}

impl RopeDecoder {
    pub(crate) fn build(spec: &RopeDecoderSpec, from: &mut Builder) -> Result<Self> {
        let embed_tokens = from.embedding("embed_tokens", spec.vocab_size, spec.hidden_size)?;
        let layers = (0..spec.windows.len())
            .map(|layer| Block::build(spec, &mut from.inside(&format!("layers.{layer}"))))
            .collect::<Result<_>>()?;
        let norm = from.rms_norm("norm", spec.hidden_size, spec.rms_norm_eps)?;
        let rope = from.rope_tables(&spec.rope, spec.heads.head_dim, spec.n_positions);
        let windows = spec.windows.clone();
        Ok(Self { embed_tokens, layers, norm, rope, windows, recomputes: false })
    }

    /// The context of each block; blocks of one window share a mask, and all share its segments.
    fn contexts(&self, input: &Input, mask: &AttentionMask) -> Vec<BlockContext> {
        let (cos_btc, sin_btc) = self.rope.gather(input.positions_bt.clone(), input.max_position);
        let mut masks: BTreeMap<Option<usize>, AttentionMask> = BTreeMap::new();
        let of_window = |window: &Option<usize>| {
            let mask = masks.entry(*window).or_insert_with(|| mask.clone().with_window(*window));
            let (cos_btc, sin_btc) = (cos_btc.clone(), sin_btc.clone());
            BlockContext { cos_btc, sin_btc, mask: mask.clone() }
        };
        self.windows.iter().map(of_window).collect()
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
        let contexts = self.contexts(input, &mask);
        let x_btd = input.embed(&self.embed_tokens);
        let x_btd = run_blocks(&self.layers, x_btd, &contexts, cache, self.recomputes, observe);
        Output::of_hidden(self.norm.forward(x_btd))
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
