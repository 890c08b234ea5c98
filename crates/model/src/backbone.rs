//! The two kinds of backbone: the decoder with rotary positions, which most families configure, and GPT-2.

use arch::ModelConfig;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kernels::WeightTensor;
use nn::{Embedding, Input, KvCache, NamedProjection, Weight, prefixed};

use crate::build::Builder;
use crate::decoder::Decoder;
use crate::gpt2::{self, Gpt2Model};
use crate::rope_decoder::{self, RopeDecoder};
use crate::{Output, Result};

/// A model without its head: token ids or embeddings to hidden states.
// A process holds a handful of models, so their size on the stack does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum Backbone {
    /// RMSNorm, RoPE, gated MLP or experts.
    RopeDecoder(RopeDecoder),
    /// LayerNorm, learned positions, GELU.
    Gpt2(Gpt2Model),
}

impl Backbone {
    pub(crate) fn build(config: &ModelConfig, from: &mut Builder) -> Result<Self> {
        Ok(match config {
            ModelConfig::Decoder(config) => {
                let from = &mut from.inside(rope_decoder::PREFIX);
                Self::RopeDecoder(RopeDecoder::build(config, from)?)
            }
            ModelConfig::Gpt2(config) => {
                Self::Gpt2(Gpt2Model::build(config, &mut from.inside(gpt2::PREFIX))?)
            }
        })
    }

    /// First part of parameter names, in place of the variant's name.
    pub(crate) fn prefix_of(variant: &str) -> Option<&'static str> {
        match variant {
            "RopeDecoder" => Some(rope_decoder::PREFIX),
            "Gpt2" => Some(gpt2::PREFIX),
            _ => None,
        }
    }

    fn decoder(&self) -> &dyn Decoder {
        match self {
            Self::RopeDecoder(model) => model,
            Self::Gpt2(model) => model,
        }
    }

    fn decoder_mut(&mut self) -> (&'static str, &mut dyn Decoder) {
        match self {
            Self::RopeDecoder(model) => (rope_decoder::PREFIX, model),
            Self::Gpt2(model) => (gpt2::PREFIX, model),
        }
    }

    /// Switches block recomputation: a tracked forward then keeps each block's input only and the rest is computed again
    /// in the backward pass. Memory and time change, values do not.
    pub fn recompute_blocks(&mut self, on: bool) {
        self.decoder_mut().1.recompute_blocks(on);
    }

    /// Every linear layer with its Hugging Face name (without `.weight`), in module order.
    pub fn projections_mut(&mut self) -> Vec<NamedProjection<'_>> {
        let (prefix, decoder) = self.decoder_mut();
        prefixed(prefix, decoder.projections_mut())
    }

    /// Runs the model on token ids, `&TokenBatch`, or on an [`Input`].
    pub fn forward(&self, input: impl Into<Input>) -> Output {
        self.decoder().run(&input.into(), None, &mut |_| ())
    }

    /// As [`Self::forward`] for the newest tokens only: earlier ones are read from the cache, and
    /// these are added to it. Call it on a model without autodiff.
    pub fn forward_cached(&self, input: impl Into<Input>, cache: &mut KvCache) -> Output {
        self.decoder().run(&input.into(), Some(cache), &mut |_| ())
    }

    /// The embeddings and each block's output, the last after the final norm: `n_layers + 1` tensors,
    /// as with `output_hidden_states` in transformers.
    pub fn hidden_states(&self, input: impl Into<Input>) -> Vec<Tensor<3>> {
        let mut states = Vec::new();
        let mut observe = |state: &Tensor<3>| states.push(state.clone());
        let last = self.decoder().run(&input.into(), None, &mut observe).hidden_btd;
        states.push(last);
        states
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.decoder().embedding().weight.device()
    }

    /// Whether the weights are on a device with autodiff.
    pub fn is_autodiff(&self) -> bool {
        self.decoder().embedding().weight.dense().is_some_and(|weight| weight.is_autodiff())
    }

    /// The token embedding with its Hugging Face name (without `.weight`).
    pub fn embedding_mut(&mut self) -> (String, &mut Embedding) {
        let (prefix, decoder) = self.decoder_mut();
        let (name, embedding) = decoder.embedding_mut();
        (format!("{prefix}.{name}"), embedding)
    }

    /// The token embedding as the weight of an output layer that shares it, `[v, d]`.
    pub fn embedding_weight(&self) -> Tensor<2> {
        self.output_weight().into_tensor()
    }

    /// As [`Self::embedding_weight`], as it is stored.
    pub(crate) fn output_weight(&self) -> WeightTensor {
        self.decoder().embedding().output_weight()
    }

    /// Appends rows to the token embedding, each the mean of the old ones.
    pub(crate) fn grow_vocabulary(&mut self, vocab_size: usize) {
        let (_, embedding) = self.embedding_mut();
        embedding.weight = Weight::new(grown(embedding.weight.val(), vocab_size));
    }
}

/// The weight `[v, d]` with copies of the mean of its rows appended, up to `vocab_size` rows.
pub(crate) fn grown(weight_vd: Tensor<2>, vocab_size: usize) -> Tensor<2> {
    let [n_rows, width] = weight_vd.dims();
    let n_new = vocab_size.saturating_sub(n_rows);
    if n_new == 0 {
        return weight_vd;
    }
    let mean_1d = weight_vd.clone().mean_dim(0);
    Tensor::cat(vec![weight_vd, mean_1d.expand([n_new, width])], 0)
}
