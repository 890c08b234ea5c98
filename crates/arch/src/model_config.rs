//! The configuration of a model of any family: sizes, parameters and costs under common names.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::cost::{AdapterShape, Computation, HeadOutput, TrainingShape, training_memory};
use crate::decoder::DecoderConfig;
use crate::dtype::Dtype;
use crate::family::ModelConfig;
use crate::memory_estimate::MemoryEstimate;
use crate::params::{LinearLayer, ParamSpec};
use crate::token_ids::TokenIds;

/// The release of transformers whose keys config.json and generation_config.json have; keys of 4.x are written beside them.
pub const TRANSFORMERS_VERSION: &str = "5.23.0";

/// The output layer of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Architecture {
    /// Logits over the vocabulary.
    CausalLm,
    /// One score per text.
    SequenceClassifier,
}

impl ModelConfig {
    /// config.json of a language model, as transformers 5 writes it, with the keys that transformers 4, mlx-lm and
    /// llama.cpp's converter read in addition.
    pub fn to_json(&self, dtype: Dtype, token_ids: &TokenIds) -> Value {
        self.to_json_as(Architecture::CausalLm, dtype, token_ids)
    }

    /// As [`Self::to_json`], of a model of any architecture.
    pub fn to_json_as(
        &self,
        architecture: Architecture,
        dtype: Dtype,
        token_ids: &TokenIds,
    ) -> Value {
        let names = self.family().entry();
        let architectures = match architecture {
            Architecture::CausalLm => names.causal_lm,
            Architecture::SequenceClassifier => names.sequence_classifier,
        };
        let mut map = Map::new();
        map.insert("architectures".to_owned(), json!(architectures.get(..1)));
        map.insert("model_type".to_owned(), json!(names.model_type));
        map.insert("dtype".to_owned(), json!(dtype.config_name()));
        map.insert("torch_dtype".to_owned(), json!(dtype.config_name()));
        map.insert("transformers_version".to_owned(), json!(TRANSFORMERS_VERSION));
        map.extend(token_ids.to_json());
        if architecture == Architecture::SequenceClassifier {
            map.insert("id2label".to_owned(), json!({ "0": "LABEL_0" }));
            map.insert("label2id".to_owned(), json!({ "LABEL_0": 0 }));
            map.insert("problem_type".to_owned(), json!("regression"));
        }
        map.extend(self.as_family().to_keys());
        map.sort_keys();
        Value::Object(map)
    }

    /// Number of tokens in the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.as_family().sizes().vocab_size
    }

    /// Width of the residual stream.
    pub fn hidden_size(&self) -> usize {
        self.as_family().sizes().hidden_size
    }

    /// Number of blocks.
    pub fn n_layers(&self) -> usize {
        self.as_family().sizes().n_layers
    }

    /// Number of query heads.
    pub fn n_heads(&self) -> usize {
        self.as_family().sizes().n_heads
    }

    /// Number of key and value heads.
    pub fn n_kv_heads(&self) -> usize {
        self.as_family().sizes().n_kv_heads
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.as_family().sizes().head_dim
    }

    /// Maximum length of a text in tokens.
    pub fn max_positions(&self) -> usize {
        self.as_family().sizes().max_positions
    }

    /// Whether the token embedding is also the weight of the output layer.
    pub fn tied(&self) -> bool {
        self.as_family().sizes().tied
    }

    /// The same model with an output layer of its own.
    ///
    /// Errors: the family has no such models.
    pub fn untied(&self) -> crate::Result<Self> {
        let mut json = self.to_json(Dtype::F32, &TokenIds::default());
        if let Some(map) = json.as_object_mut() {
            map.insert("tie_word_embeddings".to_owned(), json!(false));
        }
        Self::from_json(&json, std::path::Path::new("config.json"))
    }

    /// The configuration with embeddings of `vocab_size` tokens.
    ///
    /// # Errors
    /// The family refuses the size.
    pub fn with_vocab_size(&self, vocab_size: usize) -> crate::Result<Self> {
        let mut json = self.to_json(Dtype::F32, &TokenIds::default());
        if let Some(map) = json.as_object_mut() {
            map.insert("vocab_size".to_owned(), json!(vocab_size));
        }
        Self::from_json(&json, std::path::Path::new("config.json"))
    }

    /// Number of positions that a query of this layer attends to, itself included; `None` for all earlier ones.
    pub fn attention_window(&self, layer_idx: usize) -> Option<usize> {
        self.as_family().attention_window(layer_idx)
    }

    /// Elements of the key–value cache of one sequence of `n_positions` tokens, all layers together. A layer with a window
    /// has room for its window and 512 positions.
    pub fn kv_cache_elements(&self, n_positions: usize) -> u64 {
        self.as_family().kv_cache_elements(n_positions)
    }

    /// Parameters of the language model in module order. A tied output layer is absent.
    pub fn parameters(&self) -> Vec<ParamSpec> {
        self.as_family().parameters()
    }

    /// Parameters of the model with a score in place of the logits, in module order.
    pub fn sequence_classifier_parameters(&self) -> Vec<ParamSpec> {
        self.as_family().sequence_classifier_parameters()
    }

    /// Parameters in a Hugging Face file of the language model, in module order: [`Self::parameters`] and
    /// [`Self::zero_parameters`].
    pub fn file_parameters(&self) -> Vec<ParamSpec> {
        self.as_family().file_parameters()
    }

    /// Parameters in a Hugging Face file beyond [`Self::parameters`]: the biases of a model trained without biases.
    /// Exports write zeros; readers accept only zeros and drop them.
    pub fn zero_parameters(&self) -> Vec<ParamSpec> {
        let own: BTreeSet<String> = self.parameters().into_iter().map(|spec| spec.name).collect();
        self.file_parameters().into_iter().filter(|spec| !own.contains(&spec.name)).collect()
    }

    /// Linear layers that adapters can target, in module order.
    pub fn adaptable_layers(&self) -> Vec<LinearLayer> {
        self.as_family().adaptable_layers()
    }

    /// Prefix of all parameter names but the head's, with the dot. Files of a bare backbone omit it.
    pub fn base_prefix(&self) -> &'static str {
        self.as_family().base_prefix()
    }

    /// Whether a file's tensor can be computed from the configuration (causal masks, RoPE frequencies). Strict readers
    /// skip it.
    pub fn is_derived_tensor(&self, name: &str) -> bool {
        self.as_family().is_derived_tensor(name)
    }

    /// Number of parameters of the language model.
    pub fn n_parameters(&self) -> u64 {
        self.parameters().iter().map(ParamSpec::n_elements).sum()
    }

    /// The decoder with rotary positions, if it is one.
    pub fn decoder(&self) -> Option<&DecoderConfig> {
        match self {
            Self::Decoder(config) => Some(config),
            Self::Gpt2(_) => None,
        }
    }

    /// Whether the rotary angles of a token depend on the length of its text, for texts of any length.
    pub fn rope_depends_on_length(&self) -> bool {
        let ropes = self.decoder().map(|config| config.ropes.as_slice()).unwrap_or_default();
        ropes.iter().any(|rope| rope.fixed_up_to().is_some())
    }

    /// The length at which generation reads a text again, because the keys in its cache were rotated by other frequencies
    /// than longer texts have. `None`: never.
    pub fn rereads_at(&self) -> Option<usize> {
        self.decoder()?.rereads_at()
    }

    /// Number of parameters of the language model that a token uses. All of them in a dense model.
    pub fn n_active_parameters(&self) -> u64 {
        self.as_family().n_active_parameters()
    }

    /// Floating-point operations of a forward pass over `n_rows` texts of `row_length` tokens: two per active weight of a
    /// matrix product and token, and those of attention.
    pub fn forward_flops(&self, n_rows: u64, row_length: u64, output: HeadOutput) -> f64 {
        let family = self.as_family();
        let n_tokens = n_rows.saturating_mul(row_length) as f64;
        let attention = n_rows as f64 * family.attention_flops_per_row(row_length);
        family.matmul_flops_per_token(output) * n_tokens + attention
    }

    /// Floating-point operations of a forward and a backward pass with all weights trained: three times
    /// [`Self::forward_flops`], so six per weight and token.
    pub fn training_flops(&self, n_rows: u64, row_length: u64, output: HeadOutput) -> f64 {
        3.0 * self.forward_flops(n_rows, row_length, output)
    }

    /// Floating-point operations of a forward and a backward pass with `n_trained` weights of adapters and heads trained.
    /// A frozen weight has no gradient: it costs four per token, and a trained weight six.
    pub fn adapter_training_flops(
        &self,
        n_rows: u64,
        row_length: u64,
        output: HeadOutput,
        n_trained: u64,
    ) -> f64 {
        let n_tokens = n_rows.saturating_mul(row_length) as f64;
        let weight_gradients = self.as_family().matmul_flops_per_token(output) * n_tokens;
        self.training_flops(n_rows, row_length, output) - weight_gradients
            + 6.0 * n_trained as f64 * n_tokens
    }

    /// Memory of a training step with all weights trained.
    pub fn training_memory(
        &self,
        shape: TrainingShape,
        computation: Computation,
    ) -> MemoryEstimate {
        self.memory(shape, computation, None)
    }

    /// Memory of a training step with only adapters and heads trained. An adapter holds the input of its layer, as the
    /// gradient of the layer's own weight would.
    pub fn adapter_training_memory(
        &self,
        shape: TrainingShape,
        computation: Computation,
        adapters: AdapterShape,
    ) -> MemoryEstimate {
        self.memory(shape, computation, Some(adapters))
    }

    fn memory(
        &self,
        shape: TrainingShape,
        computation: Computation,
        adapters: Option<AdapterShape>,
    ) -> MemoryEstimate {
        let family = self.as_family();
        let parameters = match computation.output {
            HeadOutput::Scores => family.sequence_classifier_parameters(),
            HeadOutput::CrossEntropy | HeadOutput::LogProbs | HeadOutput::Distributions => {
                family.parameters()
            }
        };
        let n_parameters = parameters.iter().map(ParamSpec::n_elements).sum();
        let activations = family.activations(computation.kernel_path);
        training_memory(n_parameters, family.sizes(), shape, computation, activations, adapters)
    }
}
