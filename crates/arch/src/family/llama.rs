//! The family `llama`: RMSNorm, RoPE, grouped key–value heads, SwiGLU (Touvron et al. 2023; Llama 3 herd of models 2024).
//! Keys of config.json, parameter table and costs; the modules are in the crate `model`.

use serde_json::{Map, Value, json};

use crate::config_reader::ConfigReader;
use crate::cost::{ActivationCount, KernelPath};
use crate::error::Result;
use crate::family_config::{FamilyConfig, FamilyNames};
use crate::limits;
use crate::params::{AxisOrder, LinearShape, ParamSpec, ParamTable};
use crate::rope::{RopeParameters, RopeTable};
use crate::sizes::Sizes;

/// Configuration of a model of the family `llama`, with the names of config.json.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Number of tokens in the vocabulary.
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
    /// Width of a head; even.
    pub head_dim: usize,
    /// Maximum length of a text in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f64,
    /// Base and scaling of the rotary embedding.
    pub rope_parameters: RopeParameters,
    /// Whether the token embedding is also the weight of the output layer.
    pub tie_word_embeddings: bool,
    /// Whether the four projections of attention have a bias.
    pub attention_bias: bool,
    /// Whether the three projections of the MLP have a bias.
    pub mlp_bias: bool,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
}

/// Files of transformers before this release have no key `rope_theta`: it was a constant.
const FIRST_RELEASE_WITH_THETA: (u64, u64) = (4, 33);

/// Numbers and width of attention heads.
pub(super) struct HeadSizes {
    pub(super) n_heads: usize,
    pub(super) n_kv_heads: usize,
    pub(super) head_dim: usize,
}

impl HeadSizes {
    /// Reads and checks them. `default_head_dim` gives the width of a head from the number of heads where the file does
    /// not state it.
    pub(super) fn read(
        reader: &mut ConfigReader,
        default_head_dim: impl FnOnce(usize) -> usize,
    ) -> Result<Self> {
        let n_heads = reader.size("num_attention_heads", 1..=limits::HEADS)?;
        let n_kv_heads = reader.size_or_none("num_key_value_heads", 1..=limits::HEADS)?;
        let n_kv_heads = n_kv_heads.unwrap_or(n_heads);
        if !n_heads.is_multiple_of(n_kv_heads) {
            let message = format!(
                "`num_attention_heads` must be a multiple of `num_key_value_heads`: `{n_heads}` and `{n_kv_heads}`"
            );
            return Err(reader.inconsistent(message, None));
        }
        let head_dim = reader.size_or_none("head_dim", 2..=limits::HEAD_WIDTH)?;
        let head_dim = head_dim.unwrap_or_else(|| default_head_dim(n_heads));
        if !head_dim.is_multiple_of(2) || head_dim > limits::HEAD_WIDTH {
            let message =
                format!("`head_dim` must be even and at most {}: `{head_dim}`", limits::HEAD_WIDTH);
            let hint = "RoPE rotates pairs of elements: make `head_dim`, or `hidden_size` / `num_attention_heads`, even";
            return Err(reader.inconsistent(message, Some(hint)));
        }
        if n_heads * head_dim > limits::WIDTH {
            let message = format!(
                "`num_attention_heads` × `head_dim` must be at most {}: `{n_heads}` × `{head_dim}`",
                limits::WIDTH
            );
            return Err(reader.inconsistent(message, None));
        }
        Ok(Self { n_heads, n_kv_heads, head_dim })
    }
}

/// The first Llama files call the context length `max_sequence_length`.
fn read_positions(reader: &mut ConfigReader) -> Result<usize> {
    let range = 1..=limits::POSITIONS;
    reader.size_with_alias("max_position_embeddings", "max_sequence_length", range)
}

fn refuse_unsupported(reader: &mut ConfigReader) -> Result<()> {
    let is_silu = |v: &Value| matches!(v.as_str(), Some("silu" | "swish"));
    reader.require("hidden_act", is_silu, "supported: silu")?;
    let is_windowed = reader.flag("use_sliding_window", true)?;
    reader.require(
        "sliding_window",
        |_| !is_windowed,
        "only full attention (null) is supported",
    )?;
    let is_full = |v: &Value| {
        v.as_array().is_some_and(|types| types.iter().all(|t| t.as_str() == Some("full_attention")))
    };
    reader.require("layer_types", is_full, "supported: full_attention in all layers")
}

/// The base of RoPE in files that are older than the key `rope_theta`.
fn theta_of_old_file(reader: &mut ConfigReader) -> Option<f64> {
    let version = reader.value("transformers_version")?.as_str()?;
    let mut numbers = version.split('.').map(|part| part.parse::<u64>().ok());
    let release = (numbers.next()??, numbers.next()??);
    (release < FIRST_RELEASE_WITH_THETA).then_some(10_000.0)
}

impl LlamaConfig {
    /// Cosines and sines of positions `0..n_positions`.
    pub fn rope_table(&self, n_positions: usize) -> RopeTable {
        self.rope_parameters.table(self.head_dim, n_positions)
    }

    /// Width of all query heads.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads, and of all value heads.
    pub fn key_value_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Parameters of the language model; `qk_norm`: with a norm on each query head and each key head.
    pub(super) fn language_model(&self, qk_norm: bool) -> Vec<ParamSpec> {
        let mut table = self.backbone(qk_norm);
        if !self.tie_word_embeddings {
            table.head("lm_head.weight", self.vocab_size, self.hidden_size, self.initializer_range);
        }
        table.finish()
    }

    /// Parameters of the sequence classifier; `qk_norm` as above.
    pub(super) fn sequence_classifier(&self, qk_norm: bool) -> Vec<ParamSpec> {
        let mut table = self.backbone(qk_norm);
        table.head("score.weight", 1, self.hidden_size, self.initializer_range);
        table.finish()
    }

    fn backbone(&self, qk_norm: bool) -> ParamTable {
        let std = self.initializer_range;
        let d = self.hidden_size;
        let mut table = ParamTable::default();
        table.embedding("model.embed_tokens.weight".to_owned(), [self.vocab_size, d], std);
        for layer in 0..self.num_hidden_layers {
            self.block(&mut table, &format!("model.layers.{layer}"), qk_norm);
        }
        table.norm("model.norm", d, false);
        table
    }

    fn block(&self, table: &mut ParamTable, prefix: &str, qk_norm: bool) {
        let std = self.initializer_range;
        let (d, inner) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.query_width(), self.key_value_width());
        let attention = [("q_proj", d, q), ("k_proj", d, kv), ("v_proj", d, kv), ("o_proj", q, d)];
        for (name, d_in, d_out) in attention {
            let shape = LinearShape { d_in, d_out, bias: self.attention_bias, std };
            table.linear(&format!("{prefix}.self_attn.{name}"), AxisOrder::OutIn, shape);
        }
        if qk_norm {
            table.norm(&format!("{prefix}.self_attn.q_norm"), self.head_dim, false);
            table.norm(&format!("{prefix}.self_attn.k_norm"), self.head_dim, false);
        }
        for (name, d_in, d_out) in
            [("gate_proj", d, inner), ("up_proj", d, inner), ("down_proj", inner, d)]
        {
            let shape = LinearShape { d_in, d_out, bias: self.mlp_bias, std };
            table.linear(&format!("{prefix}.mlp.{name}"), AxisOrder::OutIn, shape);
        }
        table.norm(&format!("{prefix}.input_layernorm"), d, false);
        table.norm(&format!("{prefix}.post_attention_layernorm"), d, false);
    }
}

impl FamilyConfig for LlamaConfig {
    fn names() -> FamilyNames {
        FamilyNames {
            model_type: "llama",
            causal_lm: &["LlamaForCausalLM", "LLaMAForCausalLM"],
            sequence_classifier: &[
                "LlamaForSequenceClassification",
                "LLaMAForSequenceClassification",
            ],
        }
    }

    fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<Self> {
        let hidden_size = reader.size("hidden_size", 1..=limits::WIDTH)?;
        let heads = HeadSizes::read(reader, |n_heads| hidden_size / n_heads)?;
        if !hidden_size.is_multiple_of(heads.n_heads) {
            let message = format!(
                "`hidden_size` must be a multiple of `num_attention_heads`: `{hidden_size}` and `{}`",
                heads.n_heads
            );
            return Err(reader.inconsistent(message, None));
        }
        let max_position_embeddings = read_positions(reader)?;
        refuse_unsupported(reader)?;
        let default_theta = theta_of_old_file(reader);
        let initializer_range = reader.float_or_none("initializer_range", 1e-6..=1.0)?;
        let config = Self {
            vocab_size,
            hidden_size,
            intermediate_size: reader.size("intermediate_size", 1..=limits::WIDTH)?,
            num_hidden_layers: reader.size("num_hidden_layers", 1..=limits::LAYERS)?,
            num_attention_heads: heads.n_heads,
            num_key_value_heads: heads.n_kv_heads,
            head_dim: heads.head_dim,
            max_position_embeddings,
            rms_norm_eps: reader.float("rms_norm_eps", 0.0..=1.0)?,
            rope_parameters: RopeParameters::read(reader, default_theta, max_position_embeddings)?,
            tie_word_embeddings: reader.flag("tie_word_embeddings", false)?,
            attention_bias: reader.flag("attention_bias", false)?,
            mlp_bias: reader.flag("mlp_bias", false)?,
            initializer_range: initializer_range.unwrap_or(0.02),
        };
        reader.training_dropout(&[
            "attention_dropout",
            "hidden_dropout",
            "resid_pdrop",
            "embd_pdrop",
        ])?;
        // Splits matrix products into slices, with the same result up to rounding; no longer read by transformers.
        reader.ignore(&["pretraining_tp"]);
        Ok(config)
    }

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
        self.language_model(false)
    }

    fn sequence_classifier_parameters(&self) -> Vec<ParamSpec> {
        self.sequence_classifier(false)
    }

    fn base_prefix(&self) -> &'static str {
        "model."
    }

    fn is_derived_tensor(&self, name: &str) -> bool {
        name.ends_with(".rotary_emb.inv_freq")
    }

    fn to_keys(&self) -> Map<String, Value> {
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

    fn activations(&self, kernel_path: KernelPath) -> ActivationCount {
        let (d, inner) = (self.hidden_size as u64, self.intermediate_size as u64);
        let (q, kv) = (self.query_width() as u64, self.key_value_width() as u64);
        let (block, of_norm_weights) = match kernel_path {
            // Queries, keys, values, attention output, the residual stream between the halves, gate and up, scales of norms.
            KernelPath::Cpu => (2 * q + 2 * kv + d + 2 * inner + 2, 0),
            // Five of norms and residual sums; two of each head vector; gate, up and their product; tables.
            KernelPath::Generic => (5 * d + 2 * q + 2 * kv + 3 * inner + 29, 2 * d),
        };
        ActivationCount {
            block,
            of_norm_weights,
            final_norm: [d, d],
            working: 4 * inner + d,
            matrix: inner.saturating_mul(d),
            fixed: (self.max_position_embeddings * self.head_dim) as u64,
            other: self.head_dim as u64 + 16,
        }
    }
}
