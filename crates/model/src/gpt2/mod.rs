//! The family `gpt2` (Radford et al. 2019): LayerNorm, learned positions, GELU; biases may be absent.
//!
//! Its config and parameter table are in arch.

mod block;

use arch::Gpt2Config;
use burn::module::Module;
use burn::tensor::Tensor;
use nn::{Embedding, Input, KvCache, LayerNorm, NamedProjection};

use self::block::Block;
use crate::build::Builder;
use crate::decoder::{Decoder, projections_of, run_blocks};
use crate::{Output, Result};

/// First part of parameter names.
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
        input: &Input,
        mut cache: Option<&mut KvCache>,
        observe: &mut dyn FnMut(&Tensor<3>),
    ) -> Output {
        let [n_positions, _] = self.wpe.weight.dims();
        let last = input.max_position;
        assert!(last < n_positions, "position {last} of a model that reads {n_positions}");
        let masks = vec![input.causal_mask(cache.as_deref_mut()); self.h.len()];
        let x_btd = input.embed(&self.wte) + self.wpe.forward(input.positions_bt.clone());
        let x_btd = run_blocks(&self.h, x_btd, &masks, cache, self.recomputes, observe);
        Output::of_hidden(self.ln_f.forward(x_btd))
    }

    fn recompute_blocks(&mut self, on: bool) {
        self.recomputes = on;
    }

    fn embedding(&self) -> &Embedding {
        &self.wte
    }

    fn embedding_mut(&mut self) -> (&'static str, &mut Embedding) {
        ("wte", &mut self.wte)
    }

    fn projections_mut(&mut self) -> Vec<NamedProjection<'_>> {
        projections_of("h", &mut self.h)
    }
}
