//! A language model: a backbone and logits over the vocabulary.
//!
//! Losses take hidden states and the head's weight, so that the logits of a batch never exist at once.

use std::io;

use arch::{Dtype, ModelConfig};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kernels::{Head, WeightTensor};
use nn::{AdapterRows, Input, KvCache, Linear, Projection};

use crate::backbone::grown;
use crate::build::{Builder, ParameterSource, SeededInit};
use crate::names::write_parameters;
use crate::{Backbone, Output, Result};

/// A backbone with its language-model head.
#[derive(Module, Debug)]
pub struct CausalLm {
    /// Token ids to hidden states.
    pub backbone: Backbone,
    /// Hidden states to logits; `None` if the token embedding is used for both.
    pub lm_head: Option<Linear>,
    #[module(skip)]
    config: ModelConfig,
    #[module(skip)]
    adapter_rows: Option<AdapterRows>,
}

impl CausalLm {
    /// A model with the starting values of its family's papers.
    ///
    /// Each parameter's values are a function of `seed` and its name.
    pub fn init(config: &ModelConfig, seed: u64, device: &Device) -> Self {
        let mut source = SeededInit::new(config.parameters(), seed);
        match Self::from_source(config, &mut source, device) {
            Ok(model) => model,
            // arch's table has every parameter that the modules request; a test compares the two.
            Err(error) => unreachable!("{error}"),
        }
    }

    /// A model whose parameters come from `source`, each requested once, in module order.
    pub fn from_source(
        config: &ModelConfig,
        source: &mut dyn ParameterSource,
        device: &Device,
    ) -> Result<Self> {
        Self::build(config, Builder::new(source, device))
    }

    pub(crate) fn build(config: &ModelConfig, mut from: Builder) -> Result<Self> {
        let backbone = Backbone::build(config, &mut from)?;
        let lm_head = if config.tied() {
            None
        } else {
            Some(from.linear("lm_head", config.hidden_size(), config.vocab_size(), false)?)
        };
        Ok(Self { backbone, lm_head, config: config.clone(), adapter_rows: None })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The choice of an adapter for each row, for a model that has several.
    pub fn adapter_rows(&self) -> Option<&AdapterRows> {
        self.adapter_rows.as_ref()
    }

    /// The same model, whose layers read the adapter of each row from `rows`.
    #[must_use]
    pub fn with_adapter_rows(self, rows: AdapterRows) -> Self {
        Self { adapter_rows: Some(rows), ..self }
    }

    /// The weight of the head, `[v, d]`: its own with its adapter, or the token embedding. Losses take [`Self::head`].
    pub fn head_weight(&self) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.effective_weight(),
            None => self.backbone.embedding_weight(),
        }
    }

    /// As [`Self::head_weight`], as it is stored.
    fn stored_head_weight(&self) -> WeightTensor {
        match &self.lm_head {
            Some(head) if head.adapter.is_none() => match head.weight.in_place() {
                Some(weight) => weight,
                None => head.weight.val().into(),
            },
            Some(head) => head.effective_weight().into(),
            None => self.backbone.output_weight(),
        }
    }

    /// The output head: weight, factor and soft cap of the logits.
    pub fn head(&self) -> Head {
        let weight_vd = self.stored_head_weight();
        match self.config.decoder() {
            Some(config) => Head {
                weight_vd,
                scale: 1.0 / config.logits_scaling,
                soft_cap: config.final_logit_softcapping,
            },
            None => weight_vd.into(),
        }
    }

    /// Hidden states `[.., d]` to logits `[.., v]`.
    pub fn logits<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        match &self.lm_head {
            Some(head) if head.adapter.is_some() => {
                let of_layer = self.head();
                of_layer.capped(head.forward(of_layer.scaled(hidden)))
            }
            Some(_) | None => self.head().logits(hidden),
        }
    }

    /// Gives a model whose output layer is the token embedding an output layer of its own, with the same values. Both share
    /// their memory until one of them changes.
    ///
    /// Errors: the family has no such models.
    pub(crate) fn untie(&mut self) -> Result<()> {
        if self.lm_head.is_none() {
            self.config = self.config.untied()?;
            self.lm_head = Some(Linear::new(self.backbone.embedding_weight().detach(), None));
        }
        Ok(())
    }

    /// Appends rows to the embeddings and to an output layer of its own, up to `vocab_size` rows. Each
    /// new row is the mean of the old ones, `e_new = (1/v) sum_i e_i`: the expectation of the rows
    /// that transformers' `resize_token_embeddings` draws with `mean_resizing`, whose covariance is
    /// 1e-9 of that of the old rows.
    ///
    /// # Errors
    /// The family refuses the size.
    pub fn grow_vocabulary(&mut self, vocab_size: usize) -> Result<()> {
        self.config = self.config.with_vocab_size(vocab_size)?;
        self.backbone.grow_vocabulary(vocab_size);
        if let Some(head) = &mut self.lm_head {
            *head = Linear::new(grown(head.effective_weight().detach(), vocab_size), None);
        }
        Ok(())
    }

    /// Runs the backbone on token ids, `&TokenBatch`, or on an [`Input`].
    pub fn forward(&self, input: impl Into<Input>) -> Output {
        self.backbone.forward(input)
    }

    /// An empty cache for [`Backbone::forward_cached`], on the model's device, for `rows` texts of up to `capacity` tokens.
    pub fn new_cache(&self, rows: usize, capacity: usize) -> KvCache {
        let config = &self.config;
        let windows: Vec<_> =
            (0..config.n_layers()).map(|layer| config.attention_window(layer)).collect();
        let (g, k) = (config.n_kv_heads(), config.head_dim());
        KvCache::new(&windows, rows, capacity, g, k, &self.backbone.device())
    }

    /// Writes the weights as a safetensors file that transformers opens beside config.json.
    ///
    /// Tensors of a family's file that the model is trained without (`bias = false`) are written as zeros.
    pub fn write_safetensors(&self, out: &mut dyn io::Write, dtype: Dtype) -> Result<()> {
        write_parameters(self, &self.config.file_parameters(), dtype, out)
    }
}
