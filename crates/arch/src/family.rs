//! What every family's config answers, so that `lib.rs` names a family in one `match`. Not public: callers use
//! `ModelConfig`.

use serde_json::{Map, Value};

use crate::cost::{ActivationCount, KernelPath};
use crate::params::ParamSpec;

/// The part of a config that differs from family to family.
pub(crate) trait FamilyConfig {
    /// The sizes that families spell differently.
    fn sizes(&self) -> Sizes;

    /// Parameters of the language model in module order.
    fn parameters(&self) -> Vec<ParamSpec>;

    /// Parameters that a Hugging Face file of the language model holds; those beyond `parameters` are zeros.
    fn file_parameters(&self) -> Vec<ParamSpec> {
        self.parameters()
    }

    /// Parameters of the model with one score in place of the logits, in module order.
    fn sequence_classifier_parameters(&self) -> Vec<ParamSpec>;

    /// What names of the backbone start with; files of the bare backbone leave it out.
    fn base_prefix(&self) -> &'static str;

    /// Whether a file's tensor is one that older transformers saved although it follows from the config.
    fn is_derived_tensor(&self, name: &str) -> bool;

    /// The family's own keys of config.json.
    fn keys(&self) -> Map<String, Value>;

    /// Elements that its blocks need in a step.
    fn activations(&self, bodies: KernelPath) -> ActivationCount;
}

/// The sizes that families spell differently.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) n_layers: usize,
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) max_positions: usize,
    pub(crate) tied: bool,
}
