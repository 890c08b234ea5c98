//! The family `gpt2`: LayerNorm, learned positions, GELU (Radford et al. 2019; `bias = false` as in nanoGPT).
//! Keys of config.json, parameter table and costs; the modules are in the crate `model`.

use serde_json::{Map, Value, json};

use super::{FamilyEntry, ModelConfig};
use crate::activation::{ACTIVATION_NAMES, Activation};
use crate::config_reader::ConfigReader;
use crate::cost::{ActivationCount, KernelPath};
use crate::error::Result;
use crate::family_config::FamilyConfig;
use crate::limits;
use crate::params::{AxisOrder, LinearShape, ParamSpec, ParamTable};
use crate::sizes::Sizes;

/// Configuration of a model of the family `gpt2`, with the names of config.json.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of config.json")]
pub struct Gpt2Config {
    /// Number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// Number of heads; divides the width.
    pub n_head: usize,
    /// Maximum length of a text in tokens: rows of the position embedding.
    pub n_positions: usize,
    /// Width inside the MLP.
    pub n_inner: usize,
    /// Activation function of the MLP.
    pub activation_function: Activation,
    /// Added to the variance in norms.
    pub layer_norm_epsilon: f64,
    /// Whether attention scores are divided by the square root of the head width.
    pub scale_attn_weights: bool,
    /// Whether attention scores of block i (from 0) are divided by i + 1.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether transformers computes attention scores in f32. Temper always does.
    pub reorder_and_upcast_attn: bool,
    /// Whether the token embedding is also the weight of the output layer.
    pub tie_word_embeddings: bool,
    /// Whether linear layers and norms have biases. Temper's own key: without biases, files contain zeros.
    pub bias: bool,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
}

/// Reads the number of positions. `n_ctx`, a second name in older files, has no effect in transformers.
fn read_positions(reader: &mut ConfigReader) -> Result<usize> {
    let range = 1..=limits::POSITIONS;
    let n_positions = reader.size_with_alias("n_positions", "max_position_embeddings", range)?;
    if let Some(n_ctx) = reader.value("n_ctx")
        && n_ctx.as_u64() != Some(n_positions as u64)
    {
        reader.note(format!("n_ctx = {n_ctx} is not used: n_positions is {n_positions}"));
    }
    Ok(n_positions)
}

fn read_activation(reader: &mut ConfigReader) -> Result<Activation> {
    let key = "activation_function";
    let Some(name) = reader.text(key)? else { return Err(reader.missing(key, None)) };
    Activation::from_name(name)
        .ok_or_else(|| reader.unsupported(key, &json!(name), ACTIVATION_NAMES))
}

impl Gpt2Config {
    fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<Self> {
        let n_embd = reader.size_with_alias("n_embd", "hidden_size", 1..=limits::WIDTH / 4)?;
        let n_head = reader.size_with_alias("n_head", "num_attention_heads", 1..=limits::HEADS)?;
        if !n_embd.is_multiple_of(n_head) {
            let message =
                format!("`n_embd` must be a multiple of `n_head`: `{n_embd}` and `{n_head}`");
            return Err(reader.inconsistent(message, None));
        }
        let n_inner = reader.size_or_none("n_inner", 1..=limits::WIDTH)?;
        let initializer_range = reader.float_or_none("initializer_range", 1e-6..=1.0)?;
        let config = Self {
            vocab_size,
            n_embd,
            n_layer: reader.size_with_alias("n_layer", "num_hidden_layers", 1..=limits::LAYERS)?,
            n_head,
            n_positions: read_positions(reader)?,
            n_inner: n_inner.unwrap_or(4 * n_embd),
            activation_function: read_activation(reader)?,
            layer_norm_epsilon: reader.float("layer_norm_epsilon", 0.0..=1.0)?,
            scale_attn_weights: reader.flag("scale_attn_weights", true)?,
            scale_attn_by_inverse_layer_idx: reader
                .flag("scale_attn_by_inverse_layer_idx", false)?,
            reorder_and_upcast_attn: reader.flag("reorder_and_upcast_attn", false)?,
            tie_word_embeddings: reader.flag("tie_word_embeddings", true)?,
            bias: reader.flag("bias", true)?,
            initializer_range: initializer_range.unwrap_or(0.02),
        };
        reader.training_dropout(&["attn_pdrop", "embd_pdrop", "resid_pdrop"])?;
        reader.ignore(&[
            // The multiple-choice head.
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
            // The original GPT's tokenizer.
            "n_special",
            "predict_special_tokens",
        ]);
        Ok(config)
    }

    /// Factor of attention scores in this block (from 0).
    pub fn attention_scale(&self, layer_idx: usize) -> f64 {
        let head_dim = (self.n_embd / self.n_head) as f64;
        let scale = if self.scale_attn_weights { head_dim.powf(-0.5) } else { 1.0 };
        if self.scale_attn_by_inverse_layer_idx { scale / (layer_idx + 1) as f64 } else { scale }
    }

    fn backbone(&self, bias: bool) -> ParamTable {
        let (d, std) = (self.n_embd, self.initializer_range);
        let mut table = ParamTable::default();
        table.embedding("transformer.wte.weight".to_owned(), [self.vocab_size, d], std);
        table.embedding("transformer.wpe.weight".to_owned(), [self.n_positions, d], std);
        for layer in 0..self.n_layer {
            self.block(&mut table, &format!("transformer.h.{layer}"), bias);
        }
        table.norm("transformer.ln_f", d, bias);
        table
    }

    fn block(&self, table: &mut ParamTable, prefix: &str, bias: bool) {
        let (d, inner, std) = (self.n_embd, self.n_inner, self.initializer_range);
        // Radford et al. 2019, section 2.3: weights of layers that write to the residual stream are scaled by 1/√N.
        let residual_std = std / (2.0 * self.n_layer as f64).sqrt();
        let linear = |table: &mut ParamTable, name: &str, d_in, d_out, std| {
            let shape = LinearShape { d_in, d_out, bias, std };
            table.linear(&format!("{prefix}.{name}"), AxisOrder::InOut, shape);
        };
        table.norm(&format!("{prefix}.ln_1"), d, bias);
        linear(table, "attn.c_attn", d, 3 * d, std);
        linear(table, "attn.c_proj", d, d, residual_std);
        table.norm(&format!("{prefix}.ln_2"), d, bias);
        linear(table, "mlp.c_fc", d, inner, std);
        linear(table, "mlp.c_proj", inner, d, residual_std);
    }

    fn causal_lm(&self, bias: bool) -> Vec<ParamSpec> {
        let mut table = self.backbone(bias);
        if !self.tie_word_embeddings {
            table.head("lm_head.weight", self.vocab_size, self.n_embd, self.initializer_range);
        }
        table.finish()
    }
}

pub(super) const FAMILY: FamilyEntry = FamilyEntry {
    model_type: "gpt2",
    causal_lm: &["GPT2LMHeadModel"],
    sequence_classifier: &["GPT2ForSequenceClassification"],
    read: |reader, vocab_size| Gpt2Config::read(reader, vocab_size).map(ModelConfig::Gpt2),
    write: |_, _| (),
    rereads_longrope: false,
    lora_targets: &["c_attn"],
};

impl FamilyConfig for Gpt2Config {
    fn sizes(&self) -> Sizes {
        Sizes {
            vocab_size: self.vocab_size,
            hidden_size: self.n_embd,
            n_layers: self.n_layer,
            n_heads: self.n_head,
            n_kv_heads: self.n_head,
            head_dim: self.n_embd / self.n_head,
            max_positions: self.n_positions,
            tied: self.tie_word_embeddings,
        }
    }

    fn parameters(&self) -> Vec<ParamSpec> {
        self.causal_lm(self.bias)
    }

    fn file_parameters(&self) -> Vec<ParamSpec> {
        self.causal_lm(true)
    }

    fn sequence_classifier_parameters(&self) -> Vec<ParamSpec> {
        let mut table = self.backbone(self.bias);
        table.head("score.weight", 1, self.n_embd, self.initializer_range);
        table.finish()
    }

    fn base_prefix(&self) -> &'static str {
        "transformer."
    }

    fn is_derived_tensor(&self, name: &str) -> bool {
        // Causal masks in older files. The bias of `c_attn` has another name.
        name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")
    }

    fn to_keys(&self) -> Map<String, Value> {
        let Value::Object(mut map) = json!({
            "activation_function": self.activation_function.name(),
            "add_cross_attention": false,
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "initializer_range": self.initializer_range,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            // A second name of `n_positions`, which llama.cpp's converter and mlx-lm read.
            "n_ctx": self.n_positions,
            "n_embd": self.n_embd,
            "n_head": self.n_head,
            "n_inner": self.n_inner,
            "n_layer": self.n_layer,
            "n_positions": self.n_positions,
            "reorder_and_upcast_attn": self.reorder_and_upcast_attn,
            "resid_pdrop": 0.0,
            "scale_attn_by_inverse_layer_idx": self.scale_attn_by_inverse_layer_idx,
            "scale_attn_weights": self.scale_attn_weights,
            "tie_word_embeddings": self.tie_word_embeddings,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        }) else {
            return Map::new();
        };
        if !self.bias {
            // transformers ignores this key and reads the zeros; Temper drops them again.
            map.insert("bias".to_owned(), json!(false));
        }
        map
    }

    fn activations(&self, kernel_path: KernelPath) -> ActivationCount {
        let (d, inner) = (self.n_embd as u64, self.n_inner as u64);
        let (block, of_norm_weights) = match kernel_path {
            // Queries, keys, values, attention output, the residual stream between the halves; GELU's input; statistics.
            KernelPath::Cpu => (5 * d + inner + 4, 0),
            // Nine of norms, head vectors and residual sums; GELU's input and output.
            KernelPath::Generic => (9 * d + 2 * inner + 20, 2 * d),
        };
        ActivationCount {
            block,
            of_norm_weights,
            final_norm: [0, 2 * d],
            working: 2 * inner + d,
            matrix: inner.saturating_mul(d),
            fixed: 0,
            other: 16,
        }
    }
}
