//! config.json of each model family as a checked value: sizes, parameter tables, costs. Knows no tensors and reads no
//! weights.
//!
//! A key that changes the mathematics is honoured or refused by name; a key that nothing here knows is refused. A
//! family's keys, names and formulas stand in its own file; this file names families in one place, `dispatch!`.

mod adapter;
mod config_reader;
mod cost;
mod dtype;
mod error;
mod family;
mod gpt2;
mod ignored_keys;
pub mod limits;
mod llama;
mod model_info;
mod params;
mod peft;
mod rope;
mod token_ids;

use std::path::Path;

use serde_json::{Map, Value, json};

pub use adapter::{AdaptedLayer, AdapterError, AdapterResult, LoraConfig, Targets};
pub use cost::{AdapterShape, Computation, KernelPath, MemoryEstimate, Output, TrainingShape};
pub use dtype::Dtype;
pub use error::{Error, Result};
pub use gpt2::{Activation, Gpt2Config};
pub use llama::LlamaConfig;
pub use model_info::ModelInfo;
pub use params::{AxisOrder, Init, ParamKind, ParamSpec};
pub use peft::{ADAPTER_CONFIG, Peft, SCORE_HEADS};
pub use rope::{RopeParameters, RopeScaling, RopeTable};
pub use token_ids::TokenIds;

use config_reader::Keys;
use family::FamilyConfig;

/// A model's shape, as its config.json describes it.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelConfig {
    /// RMSNorm, RoPE, SwiGLU.
    Llama(LlamaConfig),
    /// LayerNorm, learned positions, GELU.
    Gpt2(Gpt2Config),
}

/// The known families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// See [`LlamaConfig`].
    Llama,
    /// See [`Gpt2Config`].
    Gpt2,
}

/// What stands on top of the backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Architecture {
    /// Logits over the vocabulary.
    CausalLm,
    /// One score a text.
    SequenceClassifier,
}

/// Where a family stands in this file, and nowhere else: its enum variants, this table and [`ModelConfig::family`].
struct FamilyEntry {
    family: Family,
    name: &'static str,
    causal_lm: &'static [&'static str],
    sequence_classifier: &'static [&'static str],
    new_model_defaults: fn() -> Map<String, Value>,
    read: fn(&mut Keys, usize) -> Result<ModelConfig>,
}

static FAMILIES: [FamilyEntry; 2] = [
    FamilyEntry {
        family: Family::Llama,
        name: llama::NAME,
        causal_lm: llama::CAUSAL_LM,
        sequence_classifier: llama::SEQUENCE_CLASSIFIER,
        new_model_defaults: llama::new_model_defaults,
        read: |keys, vocab_size| llama::read(keys, vocab_size).map(ModelConfig::Llama),
    },
    FamilyEntry {
        family: Family::Gpt2,
        name: gpt2::NAME,
        causal_lm: gpt2::CAUSAL_LM,
        sequence_classifier: gpt2::SEQUENCE_CLASSIFIER,
        new_model_defaults: gpt2::new_model_defaults,
        read: |keys, vocab_size| gpt2::read(keys, vocab_size).map(ModelConfig::Gpt2),
    },
];

impl Family {
    /// The family with this `model_type`.
    pub fn from_name(name: &str) -> Option<Self> {
        FAMILIES.iter().find(|entry| entry.name == name).map(|entry| entry.family)
    }

    /// The value of `model_type`.
    pub fn name(self) -> &'static str {
        self.entry().map_or("", |entry| entry.name)
    }

    /// The names of all families.
    pub fn names() -> Vec<&'static str> {
        FAMILIES.iter().map(|entry| entry.name).collect()
    }

    fn entry(self) -> Option<&'static FamilyEntry> {
        FAMILIES.iter().find(|entry| entry.family == self)
    }
}

impl ModelConfig {
    /// Reads a config.json in today's or the older spelling. `origin` stands in messages.
    pub fn from_json(value: &Value, origin: &Path) -> Result<Self> {
        Ok(ModelInfo::from_json(value, origin)?.config)
    }

    /// The config of a model to be trained from scratch: `keys` are those of config.json, as a recipe gives them;
    /// `vocab_size` is the tokenizer's where the recipe has none. Norm epsilons, the base of RoPE and the activation
    /// have defaults here, which they have not in files.
    pub fn for_new_model(
        family: Family,
        keys: &Map<String, Value>,
        vocab_size: usize,
        origin: &Path,
    ) -> Result<Self> {
        let mut all = Map::new();
        all.insert("vocab_size".to_owned(), json!(vocab_size));
        if let Some(entry) = family.entry() {
            all.extend((entry.new_model_defaults)());
            all.extend(keys.clone());
            all.insert("model_type".to_owned(), json!(entry.name));
        }
        Self::from_json(&Value::Object(all), origin)
    }

    /// The config.json of a language model in today's spelling, which transformers opens.
    pub fn to_json(&self, dtype: Dtype, token_ids: &TokenIds) -> Value {
        self.to_json_as(Architecture::CausalLm, dtype, token_ids)
    }

    /// As [`Self::to_json`], for any architecture.
    pub fn to_json_as(
        &self,
        architecture: Architecture,
        dtype: Dtype,
        token_ids: &TokenIds,
    ) -> Value {
        let mut map = Map::new();
        if let Some(entry) = self.family().entry() {
            let names = match architecture {
                Architecture::CausalLm => entry.causal_lm,
                Architecture::SequenceClassifier => entry.sequence_classifier,
            };
            map.insert("architectures".to_owned(), json!(names.get(..1)));
            map.insert("model_type".to_owned(), json!(entry.name));
        }
        map.insert("dtype".to_owned(), json!(dtype.config_name()));
        map.extend(token_ids.to_json());
        if architecture == Architecture::SequenceClassifier {
            map.insert("id2label".to_owned(), json!({ "0": "LABEL_0" }));
            map.insert("label2id".to_owned(), json!({ "LABEL_0": 0 }));
        }
        map.extend(self.as_family().keys());
        map.sort_keys();
        Value::Object(map)
    }

    /// The family.
    pub fn family(&self) -> Family {
        self.arm().0
    }

    /// Tokens in the vocabulary.
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

    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.as_family().sizes().head_dim
    }

    /// Longest text in tokens.
    pub fn max_positions(&self) -> usize {
        self.as_family().sizes().max_positions
    }

    /// Whether the token embedding is also the weight of the logits.
    pub fn tied(&self) -> bool {
        self.as_family().sizes().tied
    }

    /// The parameters of the language model in module order; a tied head is absent.
    pub fn parameters(&self) -> Vec<ParamSpec> {
        self.as_family().parameters()
    }

    /// The parameters of the model with a score in place of the logits, in module order.
    pub fn sequence_classifier_parameters(&self) -> Vec<ParamSpec> {
        self.as_family().sequence_classifier_parameters()
    }

    /// Parameters that a Hugging Face file may hold beyond [`Self::parameters`], all zeros: the biases of a model
    /// trained without. An export writes them in their place (see [`Self::file_parameters`]); a reader accepts them
    /// only as zeros and drops them.
    pub fn zero_parameters(&self) -> Vec<ParamSpec> {
        let own: std::collections::BTreeSet<String> =
            self.parameters().into_iter().map(|spec| spec.name).collect();
        self.file_parameters().into_iter().filter(|spec| !own.contains(&spec.name)).collect()
    }

    /// The parameters of a Hugging Face file of the language model in module order: [`Self::parameters`] and
    /// [`Self::zero_parameters`] in one list.
    pub fn file_parameters(&self) -> Vec<ParamSpec> {
        self.as_family().file_parameters()
    }

    /// What the names of all parameters but the head start with, dot included; files of a bare backbone leave it out.
    pub fn base_prefix(&self) -> &'static str {
        self.as_family().base_prefix()
    }

    /// Whether a tensor of this name in a file follows from the config (causal masks, RoPE frequencies), so that a
    /// strict reader passes over it.
    pub fn is_derived_tensor(&self, name: &str) -> bool {
        self.as_family().is_derived_tensor(name)
    }

    /// Number of parameters of the language model.
    pub fn n_parameters(&self) -> u64 {
        self.parameters().iter().map(ParamSpec::n_elements).sum()
    }

    /// Number of weights that each token is multiplied with: matrices and the head, which counts where it is tied.
    pub fn n_product_weights(&self) -> u64 {
        let tied_head =
            if self.tied() { (self.vocab_size() * self.hidden_size()) as u64 } else { 0 };
        let products = self.parameters().into_iter().filter(ParamSpec::is_product);
        products.map(|spec| spec.n_elements()).sum::<u64>() + tied_head
    }

    /// Floating-point operations of a forward pass: two for each product weight and token, and for each pair of a
    /// query and a key that it sees two for the score and two for the sum of values, a head-width each.
    ///
    /// `n_attended_pairs` counts pairs in one head of one block: t × (t + 1) / 2 for one text of t tokens.
    pub fn forward_flops(&self, n_tokens: u64, n_attended_pairs: u64) -> f64 {
        let products = 2.0 * self.n_product_weights() as f64 * n_tokens as f64;
        let width = (self.n_layers() * self.n_heads() * self.head_dim()) as f64;
        products + 4.0 * width * n_attended_pairs as f64
    }

    /// Floating-point operations of a forward and a backward pass: three times the forward pass, which makes six for
    /// each product weight and token.
    pub fn training_flops(&self, n_tokens: u64, n_attended_pairs: u64) -> f64 {
        3.0 * self.forward_flops(n_tokens, n_attended_pairs)
    }

    /// The same where only `n_trained` weights of adapters and heads are: a frozen weight has no gradient of its own, so
    /// its product costs four, and a trained one beside it six.
    pub fn adapter_training_flops(
        &self,
        n_tokens: u64,
        n_attended_pairs: u64,
        n_trained: u64,
    ) -> f64 {
        let products = 2.0 * self.n_product_weights() as f64 * n_tokens as f64;
        self.training_flops(n_tokens, n_attended_pairs) - products
            + 6.0 * n_trained as f64 * n_tokens as f64
    }

    /// Bytes of a training step with all weights trained, by part.
    pub fn training_memory(
        &self,
        shape: TrainingShape,
        computation: Computation,
    ) -> MemoryEstimate {
        self.memory(shape, computation, None)
    }

    /// Bytes of a training step in which only adapters and heads are trained, by part.
    ///
    /// An adapter keeps what its layer reads, as the layer's own gradient would.
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
        // A language model's head is not there where scores are asked for.
        let n_parameters = match computation.output {
            Output::Scores => {
                let parameters = self.sequence_classifier_parameters();
                parameters.iter().map(ParamSpec::n_elements).sum()
            }
            Output::CrossEntropy | Output::LogProbs => self.n_parameters(),
        };
        let count = family.activations(computation.bodies);
        cost::memory(n_parameters, family.sizes(), shape, computation, count, adapters)
    }

    fn as_family(&self) -> &dyn FamilyConfig {
        self.arm().1
    }

    /// The one match over families.
    fn arm(&self) -> (Family, &dyn FamilyConfig) {
        match self {
            Self::Llama(config) => (Family::Llama, config),
            Self::Gpt2(config) => (Family::Gpt2, config),
        }
    }
}
