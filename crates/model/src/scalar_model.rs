//! Reward and value models: a backbone with one score at each position.
//!
//! The caller gives the positions to score; no padding id is compared.

use std::io;

use arch::{Dtype, ModelConfig};
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use nn::{Input, Linear};

use crate::build::{Builder, ParameterSource, SeededInit};
use crate::names::write_parameters;
use crate::{Backbone, Output, Result};

/// A backbone with a head of width 1: `..ForSequenceClassification` with one label.
#[derive(Module, Debug)]
pub struct ScalarModel {
    /// Token ids to hidden states.
    pub backbone: Backbone,
    /// Hidden states to one score.
    pub score: Linear,
    #[module(skip)]
    config: ModelConfig,
}

impl ScalarModel {
    /// The backbone of a language model with a new head, whose values are a function of `seed`.
    ///
    /// The backbone's parameters are shared as handles until one of the two models changes them.
    pub fn from_backbone(backbone: Backbone, config: &ModelConfig, seed: u64) -> Self {
        let device = backbone.device();
        let mut source = SeededInit::new(config.sequence_classifier_parameters(), seed);
        let mut from = Builder::new(&mut source, &device);
        match from.linear("score", config.hidden_size(), 1, false) {
            Ok(score) => Self { backbone, score, config: config.clone() },
            // arch's table of classifier parameters ends with this one; a test compares the two.
            Err(error) => unreachable!("{error}"),
        }
    }

    /// A model whose parameters come from `source`, each requested once, in module order.
    pub fn from_source(
        config: &ModelConfig,
        source: &mut dyn ParameterSource,
        device: &Device,
    ) -> Result<Self> {
        let mut from = Builder::new(source, device);
        let backbone = Backbone::build(config, &mut from)?;
        let score = from.linear("score", config.hidden_size(), 1, false)?;
        Ok(Self { backbone, score, config: config.clone() })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Appends rows to the embeddings, as [`crate::CausalLm::grow_vocabulary`] does.
    ///
    /// # Errors
    /// The family refuses the size.
    pub fn grow_vocabulary(&mut self, vocab_size: usize) -> Result<()> {
        self.config = self.config.with_vocab_size(vocab_size)?;
        self.backbone.grow_vocabulary(vocab_size);
        Ok(())
    }

    /// Runs the backbone on token ids, `&TokenBatch`, or on an [`Input`].
    pub fn forward(&self, input: impl Into<Input>) -> Output {
        self.backbone.forward(input)
    }

    /// The score at every position, `[b, t]`.
    pub fn values(&self, input: impl Into<Input>) -> Tensor<2> {
        let hidden_btd = self.forward(input).hidden_btd;
        let [b, t, _] = hidden_btd.dims();
        self.score.forward(hidden_btd).reshape([b, t])
    }

    /// The score of each row at the given position (an index into the row): `[b]`.
    ///
    /// # Panics
    /// If there is not one position for each row, or one is outside its row.
    pub fn scores_at(&self, input: impl Into<Input>, at: &[usize]) -> Tensor<1> {
        self.scores_of(&self.forward(input), at)
    }

    /// As [`Self::scores_at`] from the backbone's output.
    pub fn scores_of(&self, output: &Output, at: &[usize]) -> Tensor<1> {
        let [b, t, d] = output.hidden_btd.dims();
        assert!(at.len() == b && at.iter().all(|at| *at < t), "one position in each of {b} rows");
        let rows: Vec<i32> = at.iter().enumerate().map(|(row, at)| (row * t + at) as i32).collect();
        let device = output.hidden_btd.device().inner();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [b]), &device);
        let last_bd = output.hidden_btd.clone().reshape([b * t, d]).select(0, rows);
        self.score.forward(last_bd).reshape([b])
    }

    /// Writes the weights as a safetensors file that transformers opens beside config.json.
    pub fn write_safetensors(&self, out: &mut dyn io::Write, dtype: Dtype) -> Result<()> {
        write_parameters(self, &self.config.sequence_classifier_parameters(), dtype, out)
    }
}
