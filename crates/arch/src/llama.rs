//! The family `llama`: RMSNorm, RoPE, grouped KV heads, SwiGLU (Touvron et al. 2023; Llama 3 herd of models 2024).
//! Keys of its config.json, its parameter table and its costs; the modules themselves are in `model`.

use serde_json::{Map, Value, json};

use crate::config_reader::Keys;
use crate::cost::{ActivationCount, KernelPath};
use crate::error::Result;
use crate::family::{FamilyConfig, Sizes};
use crate::limits;
use crate::params::{AxisOrder, ParamSpec, Product, Table};
use crate::rope::{RopeParameters, RopeTable};

/// The sizes and choices of one Llama-shaped model, named as in config.json.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides the number of query heads.
    pub num_key_value_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Longest text in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square in each norm.
    pub rms_norm_eps: f64,
    /// Base and scaling of the rotary embedding.
    pub rope_parameters: RopeParameters,
    /// Whether the token embedding is also the weight of the logits.
    pub tie_word_embeddings: bool,
    /// Whether the four products of attention have a bias.
    pub attention_bias: bool,
    /// Whether the three products of the MLP have a bias.
    pub mlp_bias: bool,
    /// Standard deviation of the normal distribution that weights start from.
    pub initializer_range: f64,
}

pub(crate) const NAME: &str = "llama";
pub(crate) const CAUSAL_LM: &[&str] = &["LlamaForCausalLM", "LLaMAForCausalLM"];
pub(crate) const SEQUENCE_CLASSIFIER: &[&str] =
    &["LlamaForSequenceClassification", "LLaMAForSequenceClassification"];

/// transformers had no `rope_theta` key before this release; the base was a constant.
const FIRST_RELEASE_WITH_THETA: (u64, u64) = (4, 33);

/// What a recipe need not say about a new model.
pub(crate) fn new_model_defaults() -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("rms_norm_eps".to_owned(), json!(1e-6));
    map.insert("rope_theta".to_owned(), json!(10_000.0));
    map
}

pub(crate) fn read(keys: &mut Keys, vocab_size: usize) -> Result<LlamaConfig> {
    let hidden_size = keys.size("hidden_size", 1..=limits::WIDTH)?;
    let num_attention_heads = keys.size("num_attention_heads", 1..=limits::HEADS)?;
    let num_key_value_heads =
        keys.size_or_none("num_key_value_heads", 1..=limits::HEADS)?.unwrap_or(num_attention_heads);
    let head_dim = keys.size_or_none("head_dim", 2..=limits::HEAD_WIDTH)?;
    let head_dim =
        check_heads(keys, hidden_size, num_attention_heads, num_key_value_heads, head_dim)?;
    let max_position_embeddings = read_positions(keys)?;
    refuse_what_is_not_implemented(keys)?;
    let default_theta = theta_before_the_key(keys);
    let config = LlamaConfig {
        vocab_size,
        hidden_size,
        intermediate_size: keys.size("intermediate_size", 1..=limits::WIDTH)?,
        num_hidden_layers: keys.size("num_hidden_layers", 1..=limits::LAYERS)?,
        num_attention_heads,
        num_key_value_heads,
        head_dim,
        max_position_embeddings,
        rms_norm_eps: keys.float("rms_norm_eps", 0.0..=1.0)?,
        rope_parameters: RopeParameters::read(keys, default_theta, max_position_embeddings)?,
        tie_word_embeddings: keys.flag("tie_word_embeddings", false)?,
        attention_bias: keys.flag("attention_bias", false)?,
        mlp_bias: keys.flag("mlp_bias", false)?,
        initializer_range: keys.float_or_none("initializer_range", 1e-6..=1.0)?.unwrap_or(0.02),
    };
    keys.training_defaults(&["attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop"])?;
    Ok(config)
}

/// Checks how heads divide the widths; returns the width of a head.
fn check_heads(
    keys: &Keys,
    hidden_size: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: Option<usize>,
) -> Result<usize> {
    if !hidden_size.is_multiple_of(n_heads) {
        let message = format!(
            "`hidden_size` must be a multiple of `num_attention_heads`: `{hidden_size}` and `{n_heads}`"
        );
        return Err(keys.inconsistent(message, None));
    }
    if !n_heads.is_multiple_of(n_kv_heads) {
        let message = format!(
            "`num_attention_heads` must be a multiple of `num_key_value_heads`: `{n_heads}` and `{n_kv_heads}`"
        );
        return Err(keys.inconsistent(message, None));
    }
    let head_dim = head_dim.unwrap_or(hidden_size / n_heads);
    if !head_dim.is_multiple_of(2) || head_dim > limits::HEAD_WIDTH {
        let message =
            format!("`head_dim` must be even and at most {}: `{head_dim}`", limits::HEAD_WIDTH);
        let hint =
            "RoPE turns pairs; choose `head_dim`, or `hidden_size` / `num_attention_heads`, even";
        return Err(keys.inconsistent(message, Some(hint)));
    }
    if n_heads * head_dim > limits::WIDTH {
        let message = format!(
            "`num_attention_heads` × `head_dim` must be at most {}: `{n_heads}` × `{head_dim}`",
            limits::WIDTH
        );
        return Err(keys.inconsistent(message, None));
    }
    Ok(head_dim)
}

/// The first Llama files called the context length `max_sequence_length`.
fn read_positions(keys: &mut Keys) -> Result<usize> {
    let range = 1..=limits::POSITIONS;
    let today = keys.size_or_none("max_position_embeddings", range.clone())?;
    let older = keys.size_or_none("max_sequence_length", range)?;
    match (today, older) {
        (Some(a), Some(b)) if a != b => {
            let message = format!(
                "`max_position_embeddings` is `{a}` and `max_sequence_length`, its older name, is `{b}`"
            );
            Err(keys.inconsistent(message, Some("keep `max_position_embeddings` alone")))
        }
        (Some(n), _) | (None, Some(n)) => Ok(n),
        (None, None) => Err(keys.missing("max_position_embeddings", None)),
    }
}

fn refuse_what_is_not_implemented(keys: &mut Keys) -> Result<()> {
    keys.only("hidden_act", |v| matches!(v.as_str(), Some("silu" | "swish")), "only `silu`")?;
    // transformers splits products into slices for it; the results differ in their last bits and nothing more is
    // known of models that need it.
    keys.only("pretraining_tp", |v| v.as_u64() == Some(1), "only 1")?;
    let sliding = keys.flag("use_sliding_window", true)?;
    keys.only("sliding_window", |_| !sliding, "only full attention (null)")?;
    let full = |v: &Value| {
        v.as_array().is_some_and(|types| types.iter().all(|t| t.as_str() == Some("full_attention")))
    };
    keys.only("layer_types", full, "only layers of full attention")
}

/// The constant of transformers' code where the file is older than the key, else nothing.
fn theta_before_the_key(keys: &mut Keys) -> Option<f64> {
    let version = keys.value("transformers_version")?.as_str()?;
    let mut numbers = version.split('.').map(|part| part.parse::<u64>().ok());
    let release = (numbers.next()??, numbers.next()??);
    (release < FIRST_RELEASE_WITH_THETA).then_some(10_000.0)
}

impl LlamaConfig {
    /// Cosines and sines of positions `0..n_positions`.
    pub fn rope_table(&self, n_positions: usize) -> RopeTable {
        self.rope_parameters.table(self.head_dim, n_positions)
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads, or all value heads, together.
    pub fn key_value_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    fn backbone(&self) -> Table {
        let std = self.initializer_range;
        let d = self.hidden_size;
        let mut table = Table::default();
        table.embedding("model.embed_tokens.weight".to_owned(), [self.vocab_size, d], std);
        for layer in 0..self.num_hidden_layers {
            self.block(&mut table, &format!("model.layers.{layer}"));
        }
        table.norm("model.norm", d, false);
        table
    }

    fn block(&self, table: &mut Table, prefix: &str) {
        let std = self.initializer_range;
        let (d, inner) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.query_width(), self.key_value_width());
        let attention = [("q_proj", d, q), ("k_proj", d, kv), ("v_proj", d, kv), ("o_proj", q, d)];
        for (name, n_in, n_out) in attention {
            let product = Product { n_in, n_out, bias: self.attention_bias, std };
            table.linear(&format!("{prefix}.self_attn.{name}"), AxisOrder::OutIn, product);
        }
        for (name, n_in, n_out) in
            [("gate_proj", d, inner), ("up_proj", d, inner), ("down_proj", inner, d)]
        {
            let product = Product { n_in, n_out, bias: self.mlp_bias, std };
            table.linear(&format!("{prefix}.mlp.{name}"), AxisOrder::OutIn, product);
        }
        table.norm(&format!("{prefix}.input_layernorm"), d, false);
        table.norm(&format!("{prefix}.post_attention_layernorm"), d, false);
    }
}

impl FamilyConfig for LlamaConfig {
    fn sizes(&self) -> Sizes {
        Sizes {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            n_layers: self.num_hidden_layers,
            n_heads: self.num_attention_heads,
            n_kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            max_positions: self.max_position_embeddings,
            tied: self.tie_word_embeddings,
        }
    }

    fn parameters(&self) -> Vec<ParamSpec> {
        let mut table = self.backbone();
        if !self.tie_word_embeddings {
            table.head("lm_head.weight", self.vocab_size, self.hidden_size, self.initializer_range);
        }
        table.finish()
    }

    fn sequence_classifier_parameters(&self) -> Vec<ParamSpec> {
        let mut table = self.backbone();
        table.head("score.weight", 1, self.hidden_size, self.initializer_range);
        table.finish()
    }

    fn base_prefix(&self) -> &'static str {
        "model."
    }

    fn is_derived_tensor(&self, name: &str) -> bool {
        name.ends_with(".rotary_emb.inv_freq")
    }

    fn keys(&self) -> Map<String, Value> {
        let Value::Object(map) = json!({
            "attention_bias": self.attention_bias,
            "attention_dropout": 0.0,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": self.initializer_range,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": self.mlp_bias,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "pretraining_tp": 1,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": self.rope_parameters.to_json(),
            "tie_word_embeddings": self.tie_word_embeddings,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        }) else {
            return Map::new();
        };
        map
    }

    fn activations(&self, bodies: KernelPath) -> ActivationCount {
        let (d, inner) = (self.hidden_size as u64, self.intermediate_size as u64);
        let (q, kv) = (self.query_width() as u64, self.key_value_width() as u64);
        let (block, of_norm_weights) = match bodies {
            // Queries, keys and values, what is attended, the middle of the residual stream, gate and up, scales of norms.
            KernelPath::Cpu => (2 * q + 2 * kv + d + 2 * inner + 2, 0),
            // Norms and residual sums 5, two of each head vector; gate, up and their product; tables.
            KernelPath::Generic => (5 * d + 2 * q + 2 * kv + 3 * inner + 29, 2 * d),
        };
        ActivationCount {
            block,
            of_norm_weights,
            final_norm: [d, d],
            passing: 4 * inner + d,
            matrix: inner.saturating_mul(d),
            fixed: (self.max_position_embeddings * self.head_dim) as u64,
            other: self.head_dim as u64 + 16,
        }
    }
}
