//! The family `gpt2`: LayerNorm, learned positions, GELU (Radford et al. 2019; `bias = false` after nanoGPT).
//! Keys of its config.json, its parameter table and its costs; the modules themselves are in `model`.

use serde_json::{Map, Value, json};

use crate::config_reader::Keys;
use crate::cost::{ActivationCount, KernelPath};
use crate::error::Result;
use crate::family::{FamilyConfig, Sizes};
use crate::limits;
use crate::params::{AxisOrder, ParamSpec, Product, Table};

/// The sizes and choices of one GPT-2-shaped model, named as in config.json.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of config.json")]
pub struct Gpt2Config {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// Number of heads; divides the width.
    pub n_head: usize,
    /// Longest text in tokens, and rows of the position embedding.
    pub n_positions: usize,
    /// Width inside the MLP.
    pub n_inner: usize,
    /// The function inside the MLP.
    pub activation_function: Activation,
    /// Added to the variance in each norm.
    pub layer_norm_epsilon: f64,
    /// Whether scores are divided by the square root of the head width.
    pub scale_attn_weights: bool,
    /// Whether scores of block i (from 0) are divided by i + 1.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// transformers computes scores in f32 for it; here they always are.
    pub reorder_and_upcast_attn: bool,
    /// Whether the token embedding is also the weight of the logits.
    pub tie_word_embeddings: bool,
    /// Whether products and norms have a bias. Our key: without one, files hold zeros in its place.
    pub bias: bool,
    /// Standard deviation of the normal distribution that weights start from.
    pub initializer_range: f64,
}

/// The function inside an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// GELU by its tanh approximation (`gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`).
    GeluTanh,
    /// GELU by the error function (`gelu`).
    GeluExact,
    /// max(x, 0).
    Relu,
    /// x × sigmoid(x) (`silu`, `swish`).
    Silu,
}

impl Activation {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Some(Self::GeluTanh),
            "gelu" | "gelu_python" => Some(Self::GeluExact),
            "relu" => Some(Self::Relu),
            "silu" | "swish" => Some(Self::Silu),
            _ => None,
        }
    }

    /// The name in config.json.
    pub fn name(self) -> &'static str {
        match self {
            Self::GeluTanh => "gelu_new",
            Self::GeluExact => "gelu",
            Self::Relu => "relu",
            Self::Silu => "silu",
        }
    }
}

pub(crate) const NAME: &str = "gpt2";
pub(crate) const CAUSAL_LM: &[&str] = &["GPT2LMHeadModel"];
pub(crate) const SEQUENCE_CLASSIFIER: &[&str] = &["GPT2ForSequenceClassification"];

/// What a recipe need not say about a new model.
pub(crate) fn new_model_defaults() -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("layer_norm_epsilon".to_owned(), json!(1e-5));
    map.insert("activation_function".to_owned(), json!(Activation::GeluTanh.name()));
    map
}

pub(crate) fn read(keys: &mut Keys, vocab_size: usize) -> Result<Gpt2Config> {
    let n_embd = keys.size("n_embd", 1..=limits::WIDTH / 4)?;
    let n_head = keys.size("n_head", 1..=limits::HEADS)?;
    if !n_embd.is_multiple_of(n_head) {
        let message = format!("`n_embd` must be a multiple of `n_head`: `{n_embd}` and `{n_head}`");
        return Err(keys.inconsistent(message, None));
    }
    let n_positions = keys.size("n_positions", 1..=limits::POSITIONS)?;
    // The first files say the same number again under this name.
    if let Some(n_ctx) = keys.size_or_none("n_ctx", 1..=limits::POSITIONS)?
        && n_ctx != n_positions
    {
        let message = format!("`n_ctx` must equal `n_positions`: `{n_ctx}` and `{n_positions}`");
        return Err(
            keys.inconsistent(message, Some("`n_positions` is what counts; remove `n_ctx`"))
        );
    }
    let config = Gpt2Config {
        vocab_size,
        n_embd,
        n_layer: keys.size("n_layer", 1..=limits::LAYERS)?,
        n_head,
        n_positions,
        n_inner: keys.size_or_none("n_inner", 1..=limits::WIDTH)?.unwrap_or(4 * n_embd),
        activation_function: read_activation(keys)?,
        layer_norm_epsilon: keys.float("layer_norm_epsilon", 0.0..=1.0)?,
        scale_attn_weights: keys.flag("scale_attn_weights", true)?,
        scale_attn_by_inverse_layer_idx: keys.flag("scale_attn_by_inverse_layer_idx", false)?,
        reorder_and_upcast_attn: keys.flag("reorder_and_upcast_attn", false)?,
        tie_word_embeddings: keys.flag("tie_word_embeddings", true)?,
        bias: keys.flag("bias", true)?,
        initializer_range: keys.float_or_none("initializer_range", 1e-6..=1.0)?.unwrap_or(0.02),
    };
    keys.training_defaults(&["attn_pdrop", "embd_pdrop", "resid_pdrop"])?;
    // For heads that this program does not have, and for a tokenizer of 2018.
    for key in [
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
        "n_special",
        "predict_special_tokens",
    ] {
        keys.value(key);
    }
    Ok(config)
}

fn read_activation(keys: &mut Keys) -> Result<Activation> {
    let key = "activation_function";
    let Some(name) = keys.text(key)? else { return Err(keys.missing(key, None)) };
    let hint = "supported: gelu_new, gelu_pytorch_tanh, gelu_fast, gelu, relu, silu";
    Activation::from_name(name).ok_or_else(|| keys.unsupported(key, &json!(name), hint))
}

impl Gpt2Config {
    /// What scores of this block (from 0) are multiplied by.
    pub fn attention_scale(&self, layer_idx: usize) -> f64 {
        let head_dim = (self.n_embd / self.n_head) as f64;
        let scale = if self.scale_attn_weights { head_dim.powf(-0.5) } else { 1.0 };
        if self.scale_attn_by_inverse_layer_idx { scale / (layer_idx + 1) as f64 } else { scale }
    }

    fn backbone(&self, bias: bool) -> Table {
        let (d, std) = (self.n_embd, self.initializer_range);
        let mut table = Table::default();
        table.embedding("transformer.wte.weight".to_owned(), [self.vocab_size, d], std);
        table.embedding("transformer.wpe.weight".to_owned(), [self.n_positions, d], std);
        for layer in 0..self.n_layer {
            self.block(&mut table, &format!("transformer.h.{layer}"), bias);
        }
        table.norm("transformer.ln_f", d, bias);
        table
    }

    fn block(&self, table: &mut Table, prefix: &str, bias: bool) {
        let (d, inner, std) = (self.n_embd, self.n_inner, self.initializer_range);
        // Radford et al. 2019, section 2.3: what is added to the residual stream starts smaller with depth.
        let residual_std = std / (2.0 * self.n_layer as f64).sqrt();
        let product = |name: &str, n_in, n_out, std| {
            let product = Product { n_in, n_out, bias, std };
            (format!("{prefix}.{name}"), product)
        };
        let c_attn = product("attn.c_attn", d, 3 * d, std);
        let attn_c_proj = product("attn.c_proj", d, d, residual_std);
        let c_fc = product("mlp.c_fc", d, inner, std);
        let mlp_c_proj = product("mlp.c_proj", inner, d, residual_std);
        table.norm(&format!("{prefix}.ln_1"), d, bias);
        table.linear(&c_attn.0, AxisOrder::InOut, c_attn.1);
        table.linear(&attn_c_proj.0, AxisOrder::InOut, attn_c_proj.1);
        table.norm(&format!("{prefix}.ln_2"), d, bias);
        table.linear(&c_fc.0, AxisOrder::InOut, c_fc.1);
        table.linear(&mlp_c_proj.0, AxisOrder::InOut, mlp_c_proj.1);
    }

    fn causal_lm(&self, bias: bool) -> Vec<ParamSpec> {
        let mut table = self.backbone(bias);
        if !self.tie_word_embeddings {
            table.head("lm_head.weight", self.vocab_size, self.n_embd, self.initializer_range);
        }
        table.finish()
    }
}

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
        // The causal mask, which older files hold as a tensor; the bias of `c_attn` has another name.
        name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")
    }

    fn keys(&self) -> Map<String, Value> {
        let Value::Object(mut map) = json!({
            "activation_function": self.activation_function.name(),
            "add_cross_attention": false,
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "initializer_range": self.initializer_range,
            "layer_norm_epsilon": self.layer_norm_epsilon,
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
            // transformers passes over this key and reads the zeros; this program drops them again.
            map.insert("bias".to_owned(), json!(false));
        }
        map
    }

    fn activations(&self, bodies: KernelPath) -> ActivationCount {
        let (d, inner) = (self.n_embd as u64, self.n_inner as u64);
        let (block, of_norm_weights) = match bodies {
            // Queries, keys and values, what is attended, the middle of the residual stream; GELU's input; statistics.
            KernelPath::Cpu => (5 * d + inner + 4, 0),
            // Norms, head vectors and residual sums 9; GELU's input and output.
            KernelPath::Generic => (9 * d + 2 * inner + 20, 2 * d),
        };
        ActivationCount {
            block,
            of_norm_weights,
            final_norm: [0, 2 * d],
            passing: 2 * inner + d,
            matrix: inner.saturating_mul(d),
            fixed: 0,
            other: 16,
        }
    }
}
