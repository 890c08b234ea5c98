//! The one place that lists model families.
//!
//! Everything else works on [`Backbone`]; a new family is a folder and an arm in each `match` here.

use arch::ModelConfig;
use burn::module::Module;
use burn::tensor::Tensor;
use nn::{KvCache, Projection, TokenBatch};

use crate::Result;
use crate::build::Builder;
use crate::gpt2::{self, Gpt2Model};
use crate::llama::{self, LlamaModel};

/// A model without its head: token ids in, hidden states out.
// A process holds a handful of models, so their size on the stack does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum Backbone {
    /// RMSNorm, RoPE, SwiGLU.
    Llama(LlamaModel),
    /// LayerNorm, learned positions, GELU.
    Gpt2(Gpt2Model),
}

/// What a family implements.
pub(crate) trait Decoder {
    /// The hidden states after the final norm. `observe` sees the embeddings and what each block but
    /// the last gives; with a cache, earlier tokens are read from it and these added to it.
    fn run(
        &self,
        tokens: &TokenBatch,
        cache: Option<&mut KvCache>,
        observe: &mut dyn FnMut(&Tensor<3>),
    ) -> Tensor<3>;

    /// See [`Backbone::recompute_blocks`].
    fn recompute_blocks(&mut self, on: bool);

    /// The token embedding, `[v, d]`.
    fn embedding_weight(&self) -> Tensor<2>;

    /// Every linear layer with its name behind the family's prefix, in module order.
    fn projections_mut(&mut self) -> Vec<(String, &mut dyn Projection)>;
}

impl Backbone {
    pub(crate) fn build(config: &ModelConfig, from: &mut Builder) -> Result<Self> {
        Ok(match config {
            ModelConfig::Llama(config) => {
                Self::Llama(LlamaModel::build(config, &mut from.inside(llama::PREFIX))?)
            }
            ModelConfig::Gpt2(config) => {
                Self::Gpt2(Gpt2Model::build(config, &mut from.inside(gpt2::PREFIX))?)
            }
        })
    }

    /// What names of parameters start with in place of the variant's name.
    pub(crate) fn prefix_of(variant: &str) -> Option<&'static str> {
        match variant {
            "Llama" => Some(llama::PREFIX),
            "Gpt2" => Some(gpt2::PREFIX),
            _ => None,
        }
    }

    fn decoder(&self) -> &dyn Decoder {
        match self {
            Self::Llama(model) => model,
            Self::Gpt2(model) => model,
        }
    }

    /// Whether a tracked forward keeps each block's input alone and computes the rest again in the backward pass. It
    /// changes memory and time, and no value.
    pub fn recompute_blocks(&mut self, on: bool) {
        match self {
            Self::Llama(model) => model.recompute_blocks(on),
            Self::Gpt2(model) => model.recompute_blocks(on),
        }
    }

    /// Every linear layer with its Hugging Face name (without `.weight`), in module order.
    pub fn projections_mut(&mut self) -> Vec<(String, &mut dyn Projection)> {
        let (prefix, decoder): (_, &mut dyn Decoder) = match self {
            Self::Llama(model) => (llama::PREFIX, model),
            Self::Gpt2(model) => (gpt2::PREFIX, model),
        };
        let named = decoder.projections_mut().into_iter();
        named.map(|(name, layer)| (format!("{prefix}.{name}"), layer)).collect()
    }

    /// Hidden states after the final norm, `[b, t, d]`.
    pub fn forward(&self, tokens: &TokenBatch) -> Tensor<3> {
        self.decoder().run(tokens, None, &mut |_| ())
    }

    /// As [`Self::forward`] for the newest tokens only: earlier ones are read from the cache, and
    /// these are added to it. Call it on a model without autodiff.
    pub fn forward_cached(&self, tokens: &TokenBatch, cache: &mut KvCache) -> Tensor<3> {
        self.decoder().run(tokens, Some(cache), &mut |_| ())
    }

    /// The embeddings, what each block gives, the last after the final norm: `n_layers + 1` tensors,
    /// as `output_hidden_states` of transformers.
    pub fn hidden_states(&self, tokens: &TokenBatch) -> Vec<Tensor<3>> {
        let mut states = Vec::new();
        let last = self.decoder().run(tokens, None, &mut |state| states.push(state.clone()));
        states.push(last);
        states
    }

    /// The token embedding, `[v, d]`.
    pub fn embedding_weight(&self) -> Tensor<2> {
        self.decoder().embedding_weight()
    }
}
