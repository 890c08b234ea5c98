//! The family `gpt2` (Radford et al. 2019): LayerNorm, learned positions, GELU; biases may be absent.
//!
//! Its config and parameter table are in arch; here are only the modules.

mod block;

use arch::Gpt2Config;
use burn::module::Module;
use burn::tensor::Tensor;
use kernels::AttentionMask;
use nn::{Embedding, KvCache, LayerNorm, Projection, TokenBatch};

use self::block::Block;
use crate::Result;
use crate::backbone::Decoder;
use crate::build::Builder;

/// What names of parameters start with.
pub(crate) const PREFIX: &str = "transformer";

/// A GPT-2-shaped backbone.
#[derive(Module, Debug)]
pub struct Gpt2Model {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
    #[module(skip)]
    recomputes: bool,
}

impl Gpt2Model {
    pub(crate) fn build(config: &Gpt2Config, from: &mut Builder) -> Result<Self> {
        let d = config.n_embd;
        Ok(Self {
            wte: from.embedding("wte", config.vocab_size, d)?,
            wpe: from.embedding("wpe", config.n_positions, d)?,
            h: (0..config.n_layer)
                .map(|layer| Block::build(config, layer, &mut from.inside(&format!("h.{layer}"))))
                .collect::<Result<_>>()?,
            ln_f: from.layer_norm("ln_f", d, config.bias, config.layer_norm_epsilon)?,
            recomputes: false,
        })
    }
}

impl Decoder for Gpt2Model {
    fn run(
        &self,
        tokens: &TokenBatch,
        mut cache: Option<&mut KvCache>,
        observe: &mut dyn FnMut(&Tensor<3>),
    ) -> Tensor<3> {
        let [n_positions, _] = self.wpe.weight.dims();
        let last = tokens.max_position;
        assert!(last < n_positions, "position {last} of a model that reads {n_positions}");
        let segments_bt = &tokens.segments_bt;
        let mask = match &mut cache {
            Some(cache) => cache.advance(tokens, None),
            None => AttentionMask::new(segments_bt.clone(), segments_bt.clone(), None),
        };
        let words_btd = self.wte.forward(tokens.ids_bt.clone());
        let mut x_btd = words_btd + self.wpe.forward(tokens.positions_bt.clone());
        for (idx, block) in self.h.iter().enumerate() {
            observe(&x_btd);
            let cache = cache.as_mut().map(|cache| cache.layer(idx));
            x_btd = match cache {
                None if self.recomputes => block.recomputed(x_btd, &mask),
                cache => block.forward(x_btd, &mask, cache),
            };
        }
        self.ln_f.forward(x_btd)
    }

    fn recompute_blocks(&mut self, on: bool) {
        self.recomputes = on;
    }

    fn embedding_weight(&self) -> Tensor<2> {
        self.wte.weight.val()
    }

    fn projections_mut(&mut self) -> Vec<(String, &mut dyn Projection)> {
        let blocks = self.h.iter_mut().enumerate();
        let named = blocks.flat_map(|(idx, block)| {
            let layers = block.projections_mut().into_iter();
            layers.map(move |(name, layer)| (format!("h.{idx}.{name}"), layer))
        });
        named.collect()
    }
}
