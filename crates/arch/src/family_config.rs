//! The trait that a model family implements: everything this crate needs to know about one.

use serde_json::{Map, Value};

use crate::cost::{ActivationCount, HeadOutput, KernelPath, attended_pairs};
use crate::params::{LinearLayer, ParamKind, ParamSpec, linear_layers};
use crate::sizes::Sizes;

/// Positions besides the window that a layer's key–value cache has room for: two chunks of keys in the kernels.
const CACHE_SLACK: usize = 512;

/// The configuration of a model of one family.
///
/// Most families share one implementation, [`crate::DecoderConfig`], and have a file with their keys alone. Methods with a
/// body hold for dense decoders and are overridden where a family differs: mixtures of experts activate a part of their
/// weights, for example.
pub(crate) trait FamilyConfig {
    /// The family's keys of config.json, for writing.
    fn to_keys(&self) -> Map<String, Value>;

    fn sizes(&self) -> Sizes;

    /// Parameters of the language model in module order. A tied output layer is absent.
    fn parameters(&self) -> Vec<ParamSpec>;

    /// Parameters of the model with a score in place of the logits, in module order.
    fn sequence_classifier_parameters(&self) -> Vec<ParamSpec>;

    /// Parameters in a Hugging Face file of the language model. Those that are not in `parameters` are zeros.
    fn file_parameters(&self) -> Vec<ParamSpec> {
        self.parameters()
    }

    /// Prefix of all parameter names but the head's, with the dot. Files of a bare backbone omit it.
    fn base_prefix(&self) -> &'static str;

    /// Whether a tensor of this name, written by older versions of transformers, can be computed from the configuration.
    fn is_derived_tensor(&self, name: &str) -> bool;

    /// Linear layers that adapters can target, in module order: those inside blocks, no embeddings and no heads.
    fn adaptable_layers(&self) -> Vec<LinearLayer> {
        linear_layers(&self.parameters())
    }

    /// Number of positions that a query of this layer attends to, itself included; `None` for all earlier ones.
    fn attention_window(&self, _layer_idx: usize) -> Option<usize> {
        None
    }

    /// Elements of the key–value cache of one sequence: a layer with a window has room for the window and two chunks.
    fn kv_cache_elements(&self, n_positions: usize) -> u64 {
        let Sizes { n_layers, n_kv_heads, head_dim, .. } = self.sizes();
        let per_position = 2 * (n_kv_heads * head_dim) as u64;
        let positions = (0..n_layers).map(|layer_idx| {
            let window = self.attention_window(layer_idx);
            window.map_or(n_positions, |w| w.saturating_add(CACHE_SLACK).min(n_positions))
        });
        positions.fold(0, |sum, n| per_position.saturating_mul(n as u64).saturating_add(sum))
    }

    /// Parameters of the language model that a token uses.
    fn n_active_parameters(&self) -> u64 {
        self.parameters().iter().map(ParamSpec::n_elements).sum()
    }

    /// Weights of linear layers inside blocks that a token is multiplied with.
    fn n_active_matrix_weights(&self) -> u64 {
        let parameters = self.parameters().into_iter();
        let matrices = parameters.filter(|spec| spec.kind == ParamKind::Matrix);
        matrices.map(|spec| spec.n_elements()).sum()
    }

    /// Floating-point operations of the matrix products with weights, for one token in one forward pass: two per weight.
    ///
    /// The output layer counts where logits are computed; a score's single column does not.
    fn matmul_flops_per_token(&self, output: HeadOutput) -> f64 {
        let Sizes { vocab_size, hidden_size, .. } = self.sizes();
        let head = match output {
            HeadOutput::CrossEntropy | HeadOutput::LogProbs | HeadOutput::Distributions => {
                (vocab_size * hidden_size) as u64
            }
            HeadOutput::Scores => 0,
        };
        2.0 * (self.n_active_matrix_weights() + head) as f64
    }

    /// Floating-point operations of attention in a forward pass over one row: for each pair of a query and a key that it
    /// attends to, two for the score and two for the sum of values, per element of a head.
    fn attention_flops_per_row(&self, row_length: u64) -> f64 {
        let Sizes { n_layers, n_heads, head_dim, .. } = self.sizes();
        let n_pairs = (0..n_layers).fold(0_u64, |sum, layer_idx| {
            sum.saturating_add(attended_pairs(row_length, self.attention_window(layer_idx)))
        });
        4.0 * (n_heads * head_dim) as f64 * n_pairs as f64
    }

    /// Elements that the blocks hold and use in a training step.
    fn activations(&self, kernel_path: KernelPath) -> ActivationCount;
}
