//! The decoder with rotary positions: one description of the forward pass, of which most families are variants.
//!
//! A family's file reads its config.json into a [`DecoderConfig`] and writes it again; parameters, costs and, in the crate
//! `model`, the modules follow from the description. A block that no family has had so far is a new field here.

mod costs;
mod keys;
mod layer_types;
mod parameters;

use serde_json::{Map, Value, json};

use crate::activation::Activation;
use crate::cost::{ActivationCount, KernelPath};
use crate::family_config::FamilyConfig;
use crate::family_list::Family;
use crate::params::ParamSpec;
use crate::rope::{RopeParameters, RopeScaling, RopeTable};
use crate::sizes::Sizes;

pub(crate) use keys::{CommonKeys, HeadDim};
pub(crate) use layer_types::{
    LayerTypes, layer_types, read_layer_types, require_uniform_layer_types,
};
pub use parameters::is_expert_parameter;

/// Configuration of a decoder with rotary positions. Fields have the names of Llama's config.json where it has them.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of config.json")]
pub struct DecoderConfig {
    /// The family, which decides the keys of config.json.
    pub family: Family,
    /// Number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP of blocks without experts.
    pub intermediate_size: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides the number of query heads.
    pub num_key_value_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Maximum length of a text in tokens, before scaling by length.
    pub max_position_embeddings: usize,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f64,
    /// Whether norms multiply by 1 + weight instead of the weight.
    pub norm_adds_one: bool,
    /// Position of the norms of a block.
    pub norm_placement: NormPlacement,
    /// Norms of queries and keys, before the rotation.
    pub qk_norm: QkNorm,
    /// Whether queries, keys and values are one projection.
    pub is_qkv_packed: bool,
    /// Whether gate and up projection of the MLP are one.
    pub is_mlp_packed: bool,
    /// Whether the projections of queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the output projection of attention has a bias.
    pub o_bias: bool,
    /// Whether the projections of the MLP have biases.
    pub mlp_bias: bool,
    /// Activation of the gate in the MLP.
    pub hidden_act: Activation,
    /// Factor of attention scores.
    pub attention_scale: AttentionScale,
    /// Soft cap of attention scores: `cap · tanh(score / cap)`.
    pub attn_logit_softcapping: Option<f64>,
    /// Soft cap of logits.
    pub final_logit_softcapping: Option<f64>,
    /// Factor of token embeddings.
    pub embedding_multiplier: f64,
    /// Factor of what each half of a block adds to the residual stream.
    pub residual_multiplier: f64,
    /// Divisor of logits.
    pub logits_scaling: f64,
    /// The blocks.
    pub layers: Vec<LayerConfig>,
    /// Rotary embeddings that blocks refer to.
    pub ropes: Vec<RopeParameters>,
    /// The experts of sparse blocks.
    pub experts: Option<ExpertsConfig>,
    /// Whether the token embedding is also the weight of the output layer.
    pub tie_word_embeddings: bool,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
}

/// In what the blocks of one model differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerConfig {
    /// Number of positions that a query attends to, itself included; `None` for all earlier ones.
    pub window: Option<usize>,
    /// Index into [`DecoderConfig::ropes`]; `None` for a block without positions.
    pub rope: Option<usize>,
    /// Whether experts are in the place of the MLP.
    pub is_sparse: bool,
}

/// Position of the norms of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// Before attention and before the MLP.
    Before,
    /// After attention and after the MLP, before the sum with the residual stream (OLMo 2, section 3.1).
    After,
    /// Before and after both (Gemma 2).
    Both,
}

/// Norms of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    None,
    /// One for each head, with a weight that heads share.
    Heads,
    /// One over all heads together.
    Whole,
}

/// Factor of attention scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AttentionScale {
    /// 1 / √`head_dim`.
    HeadDim,
    /// 1 / √ of this number (`query_pre_attn_scalar`).
    InverseRoot(f64),
    /// This number (`attention_multiplier`).
    Factor(f64),
}

/// The experts of a sparse block (Shazeer et al. 2017; Fedus et al. 2021).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertsConfig {
    /// Number of experts.
    pub num_experts: usize,
    /// Number of experts that a token is sent to.
    pub num_experts_per_tok: usize,
    /// Width inside an expert.
    pub moe_intermediate_size: usize,
    /// Whether the probabilities of a token's experts are divided by their sum.
    pub norm_topk_prob: bool,
    /// Width inside the expert that every token is sent to, if there is one. A sigmoid gate multiplies its output.
    pub shared_expert_intermediate_size: Option<usize>,
    /// Factor of the load-balancing loss in training; 0: none.
    pub router_aux_loss_coef: f64,
    /// Names of the modules.
    pub naming: ExpertNaming,
}

/// Names of the modules of a sparse block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertNaming {
    /// `mlp.experts.0.gate_proj`, …
    Mlp,
    /// `block_sparse_moe.experts.0.w1`, … (Mixtral).
    BlockSparse,
}

impl DecoderConfig {
    /// Width of all query heads.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads, and of all value heads.
    pub fn key_value_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Factor of attention scores.
    pub fn score_scale(&self) -> f64 {
        match self.attention_scale {
            AttentionScale::HeadDim => (self.head_dim as f64).powf(-0.5),
            AttentionScale::InverseRoot(scalar) => scalar.powf(-0.5),
            AttentionScale::Factor(factor) => factor,
        }
    }

    /// The rotary embedding of the first block that has one.
    ///
    /// # Panics
    /// If no block has positions, which no reader of a family lets pass.
    pub fn rope_parameters(&self) -> &RopeParameters {
        &self.ropes[0]
    }

    /// Cosines and sines of positions `0..n_positions` in the first rotary embedding.
    pub fn rope_table(&self, n_positions: usize) -> RopeTable {
        self.rope_parameters().table(self.head_dim, n_positions)
    }

    /// The first length at which transformers discards the key–value cache and reads the text again, because keys that are
    /// already in it were rotated by other frequencies. `None`: never.
    pub fn rereads_at(&self) -> Option<usize> {
        match self.rope_parameters().scaling {
            RopeScaling::LongRope { original_max_position_embeddings, .. }
                if self.family.entry().rereads_longrope =>
            {
                Some(original_max_position_embeddings + 1)
            }
            RopeScaling::LongRope { .. }
            | RopeScaling::Default
            | RopeScaling::Linear { .. }
            | RopeScaling::Llama3 { .. }
            | RopeScaling::Yarn { .. }
            | RopeScaling::Dynamic { .. } => None,
        }
    }

    /// The one window of all blocks that have one.
    pub(crate) fn window(&self) -> Option<usize> {
        self.layers.iter().find_map(|layer| layer.window)
    }

    /// The number n such that every n-th block alone has full attention, if there is one. A model with fewer blocks than its
    /// usual n has none with full attention; any larger n describes it.
    pub(crate) fn window_pattern(&self) -> Option<usize> {
        let full = |layer: &LayerConfig| layer.window.is_none();
        let pattern = self.layers.iter().position(full).unwrap_or(self.layers.len()) + 1;
        let fits =
            |(number, layer): (usize, &LayerConfig)| full(layer) == number.is_multiple_of(pattern);
        (1..).zip(&self.layers).all(fits).then_some(pattern)
    }

    /// Number of blocks with full attention below those with a window; all, if the blocks are mixed otherwise.
    pub(crate) fn n_full_below_windows(&self) -> usize {
        let n_full = self.layers.iter().take_while(|layer| layer.window.is_none()).count();
        let is_split = self.layers.iter().skip(n_full).all(|layer| layer.window.is_some());
        if is_split { n_full } else { self.layers.len() }
    }

    /// Gives blocks with full attention the first rotary embedding, and those with a window the second.
    pub(crate) fn rotate_by_layer_type(&mut self) {
        for layer in &mut self.layers {
            layer.rope = Some(usize::from(layer.window.is_some()));
        }
    }

    /// Writes `rope_parameters` with an entry for each type of layer.
    pub(crate) fn write_ropes_by_layer_type(&self, keys: &mut Map<String, Value>) {
        if let [full, sliding] = self.ropes.as_slice() {
            let (full, sliding) = (full.to_json(), sliding.to_json());
            let both = json!({ "full_attention": full, "sliding_attention": sliding });
            keys.insert("rope_parameters".to_owned(), both);
        }
    }

    /// Sets the window of each block.
    pub(crate) fn set_windows(&mut self, windows: impl IntoIterator<Item = Option<usize>>) {
        for (layer, window) in self.layers.iter_mut().zip(windows) {
            layer.window = window;
        }
    }
}

impl FamilyConfig for DecoderConfig {
    fn sizes(&self) -> Sizes {
        let stretch = match self.rope_parameters().scaling {
            RopeScaling::Dynamic { factor, .. } => factor,
            RopeScaling::Default
            | RopeScaling::Linear { .. }
            | RopeScaling::Llama3 { .. }
            | RopeScaling::Yarn { .. }
            | RopeScaling::LongRope { .. } => 1.0,
        };
        Sizes {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            n_layers: self.layers.len(),
            n_heads: self.num_attention_heads,
            n_kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            max_positions: (self.max_position_embeddings as f64 * stretch) as usize,
            tied: self.tie_word_embeddings,
        }
    }

    fn parameters(&self) -> Vec<ParamSpec> {
        parameters::language_model(self)
    }

    fn sequence_classifier_parameters(&self) -> Vec<ParamSpec> {
        parameters::sequence_classifier(self)
    }

    fn base_prefix(&self) -> &'static str {
        "model."
    }

    fn is_derived_tensor(&self, name: &str) -> bool {
        name.ends_with(".rotary_emb.inv_freq")
    }

    fn attention_window(&self, layer_idx: usize) -> Option<usize> {
        self.layers.get(layer_idx)?.window
    }

    fn n_active_parameters(&self) -> u64 {
        costs::n_active(self, |_| true)
    }

    fn n_active_matrix_weights(&self) -> u64 {
        costs::n_active(self, |kind| kind == crate::params::ParamKind::Matrix)
    }

    fn to_keys(&self) -> Map<String, Value> {
        keys::to_keys(self)
    }

    fn activations(&self, kernel_path: KernelPath) -> ActivationCount {
        costs::activations(self, kernel_path)
    }
}
