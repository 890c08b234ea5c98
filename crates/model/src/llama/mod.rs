//! The family `llama` (Touvron et al. 2023): RMSNorm, RoPE, grouped key-value heads, SwiGLU.
//!
//! Its config and parameter table are in arch; here are only the modules.

mod block;

use arch::{LlamaConfig, RopeTable};
use burn::module::Module;
use burn::tensor::Tensor;
use kernels::AttentionMask;
use nn::{Embedding, KvCache, Projection, RmsNorm, RopeTables, TokenBatch};

use self::block::{Block, BlockContext};
use crate::Result;
use crate::backbone::Decoder;
use crate::build::Builder;

/// What names of parameters start with.
pub(crate) const PREFIX: &str = "model";

/// A Llama-shaped backbone.
#[derive(Module, Debug)]
pub struct LlamaModel {
    embed_tokens: Embedding,
    layers: Vec<Block>,
    norm: RmsNorm,
    #[module(skip)]
    rope: RopeTables,
    #[module(skip)]
    recomputes: bool,
}

impl LlamaModel {
    pub(crate) fn build(config: &LlamaConfig, from: &mut Builder) -> Result<Self> {
        let (v, d) = (config.vocab_size, config.hidden_size);
        let embed_tokens = from.embedding("embed_tokens", v, d)?;
        let layers = (0..config.num_hidden_layers)
            .map(|layer| Block::build(config, &mut from.inside(&format!("layers.{layer}"))))
            .collect::<Result<_>>()?;
        let norm = from.rms_norm("norm", d, config.rms_norm_eps)?;
        let table = if from.rounds_frequencies() {
            rounded_rope_table(config)
        } else {
            config.rope_table(config.max_position_embeddings)
        };
        let rope = RopeTables::new(table.cos, table.sin, table.n_positions, from.device());
        Ok(Self { embed_tokens, layers, norm, rope, recomputes: false })
    }
}

/// The table of a module that was cast to bf16 as a whole: its frequencies are a buffer of it and
/// were rounded too, and angles then computed from them in f32.
fn rounded_rope_table(config: &LlamaConfig) -> RopeTable {
    let n_positions = config.max_position_embeddings;
    let frequencies = config.rope_parameters.inverse_frequencies(config.head_dim);
    let frequencies: Vec<f32> =
        frequencies.iter().map(|f| half::bf16::from_f32(*f as f32).to_f32()).collect();
    let factor = config.rope_parameters.attention_factor();
    let angles = (0..n_positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
    let (sin, cos) = angles
        .map(|angle| f64::from(angle).sin_cos())
        .map(|(sin, cos)| ((sin * factor) as f32, (cos * factor) as f32))
        .unzip();
    RopeTable { cos, sin, n_positions, half_width: frequencies.len() }
}

impl Decoder for LlamaModel {
    fn run(
        &self,
        tokens: &TokenBatch,
        mut cache: Option<&mut KvCache>,
        observe: &mut dyn FnMut(&Tensor<3>),
    ) -> Tensor<3> {
        let segments_bt = &tokens.segments_bt;
        let mask = match &mut cache {
            Some(cache) => cache.advance(tokens, None),
            None => AttentionMask::new(segments_bt.clone(), segments_bt.clone(), None),
        };
        let (cos_btc, sin_btc) = self.rope.gather(tokens.positions_bt.clone(), tokens.max_position);
        let context = BlockContext { cos_btc, sin_btc, mask };
        let mut x_btd = self.embed_tokens.forward(tokens.ids_bt.clone());
        for (idx, layer) in self.layers.iter().enumerate() {
            observe(&x_btd);
            let cache = cache.as_mut().map(|cache| cache.layer(idx));
            x_btd = match cache {
                None if self.recomputes => layer.recomputed(x_btd, &context),
                cache => layer.forward(x_btd, &context, cache),
            };
        }
        self.norm.forward(x_btd)
    }

    fn recompute_blocks(&mut self, on: bool) {
        self.recomputes = on;
    }

    fn embedding_weight(&self) -> Tensor<2> {
        self.embed_tokens.weight.val()
    }

    fn projections_mut(&mut self) -> Vec<(String, &mut dyn Projection)> {
        let blocks = self.layers.iter_mut().enumerate();
        let named = blocks.flat_map(|(idx, block)| {
            let layers = block.projections_mut().into_iter();
            layers.map(move |(name, layer)| (format!("layers.{idx}.{name}"), layer))
        });
        named.collect()
    }
}
