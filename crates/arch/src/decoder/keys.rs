//! Keys of config.json that all decoders have.

use serde_json::{Map, Value, json};

use super::{AttentionScale, DecoderConfig, ExpertsConfig, LayerConfig, NormPlacement, QkNorm};
use crate::activation::{ACTIVATION_NAMES, Activation};
use crate::config_reader::ConfigReader;
use crate::error::Result;
use crate::family_list::Family;
use crate::limits;
use crate::rope::{RopeKeys, RopeParameters, RopeScaling};

/// In which keys and defaults a family differs from Llama.
pub(crate) struct CommonKeys {
    /// The family.
    pub(crate) family: Family,
    /// Width of a head in files that do not state it.
    pub(crate) head_dim: HeadDim,
    /// A second name of `max_position_embeddings` in older files.
    pub(crate) positions_alias: Option<&'static str>,
    /// The key of the activation function.
    pub(crate) activation_key: &'static str,
    /// The one activation function of the family.
    pub(crate) activation: Activation,
    /// Keys of RoPE.
    pub(crate) rope: RopeKeys,
    /// Whether `rope_parameters` may have an entry for each type of layer.
    pub(crate) has_rope_by_layer_type: bool,
    /// Whether the output layer is tied in files that do not say so.
    pub(crate) is_tied: bool,
}

/// Width of a head in files that do not state it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HeadDim {
    /// `hidden_size` / `num_attention_heads`, which must be whole.
    Divided,
    /// A constant of the family.
    Constant(usize),
}

impl CommonKeys {
    /// The keys of Llama, under the name of another family.
    pub(crate) fn of_llama(family: Family) -> Self {
        Self {
            family,
            head_dim: HeadDim::Divided,
            positions_alias: None,
            activation_key: "hidden_act",
            activation: Activation::Silu,
            rope: RopeKeys::default(),
            has_rope_by_layer_type: false,
            is_tied: false,
        }
    }

    /// Reads the common keys. The result is a block of Llama without biases; the family changes what it has otherwise.
    pub(crate) fn read(
        &self,
        reader: &mut ConfigReader,
        vocab_size: usize,
    ) -> Result<DecoderConfig> {
        let hidden_size = reader.size("hidden_size", 1..=limits::WIDTH)?;
        let heads = HeadSizes::read(reader, |n_heads| match self.head_dim {
            HeadDim::Divided => hidden_size / n_heads,
            HeadDim::Constant(width) => width,
        })?;
        if matches!(self.head_dim, HeadDim::Divided) && !hidden_size.is_multiple_of(heads.n_heads) {
            let message = format!(
                "`hidden_size` must be a multiple of `num_attention_heads`: `{hidden_size}` and `{}`",
                heads.n_heads
            );
            return Err(reader.inconsistent(message, None));
        }
        let range = 1..=limits::POSITIONS;
        let max_position_embeddings = match self.positions_alias {
            Some(alias) => reader.size_with_alias("max_position_embeddings", alias, range)?,
            None => reader.size("max_position_embeddings", range)?,
        };
        let hidden_act = self.read_activation(reader)?;
        let ropes = self.read_ropes(reader, max_position_embeddings)?;
        for rope in &ropes {
            check_rope(reader, rope, heads.head_dim)?;
        }
        let n_layers = reader.size("num_hidden_layers", 1..=limits::LAYERS)?;
        let initializer_range = reader.float_or_none("initializer_range", 1e-6..=1.0)?;
        reader.training_dropout(&["attention_dropout"])?;
        let layer = LayerConfig { window: None, rope: Some(0), is_sparse: false };
        Ok(DecoderConfig {
            family: self.family,
            vocab_size,
            hidden_size,
            intermediate_size: reader.size("intermediate_size", 1..=limits::WIDTH)?,
            num_attention_heads: heads.n_heads,
            num_key_value_heads: heads.n_kv_heads,
            head_dim: heads.head_dim,
            max_position_embeddings,
            rms_norm_eps: reader.float("rms_norm_eps", 0.0..=1.0)?,
            norm_adds_one: false,
            norm_placement: NormPlacement::Before,
            qk_norm: QkNorm::None,
            is_qkv_packed: false,
            is_mlp_packed: false,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            hidden_act,
            attention_scale: AttentionScale::HeadDim,
            attn_logit_softcapping: None,
            final_logit_softcapping: None,
            embedding_multiplier: 1.0,
            residual_multiplier: 1.0,
            logits_scaling: 1.0,
            layers: vec![layer; n_layers],
            ropes,
            experts: None,
            tie_word_embeddings: reader.flag("tie_word_embeddings", self.is_tied)?,
            initializer_range: initializer_range.unwrap_or(0.02),
        })
    }

    /// One rotary embedding, or those of full attention and of windowed attention.
    fn read_ropes(
        &self,
        reader: &mut ConfigReader,
        max_position_embeddings: usize,
    ) -> Result<Vec<RopeParameters>> {
        if self.has_rope_by_layer_type
            && let Some(both) = RopeParameters::read_by_layer_type(reader, max_position_embeddings)?
        {
            return Ok(both.to_vec());
        }
        Ok(vec![RopeParameters::read(reader, self.rope, max_position_embeddings)?])
    }

    /// The activation function; that of the family if the file does not name one.
    fn read_activation(&self, reader: &mut ConfigReader) -> Result<Activation> {
        let key = self.activation_key;
        let Some(name) = reader.text(key)? else { return Ok(self.activation) };
        Activation::from_name(name)
            .ok_or_else(|| reader.unsupported(key, &json!(name), ACTIVATION_NAMES))
    }
}

impl ExpertsConfig {
    /// Reads the factor of the load-balancing loss, whose default in transformers is 0.001.
    pub(crate) fn read_aux_loss(reader: &mut ConfigReader) -> Result<f64> {
        // Whether transformers adds the loss, and returns the router's logits. Temper adds it in training.
        reader.flag("output_router_logits", false)?;
        let coefficient = reader.float_or_none("router_aux_loss_coef", 0.0..=1e3)?;
        Ok(coefficient.unwrap_or(0.001))
    }
}

/// A list of divisors must have one for each rotated pair.
fn check_rope(reader: &ConfigReader, rope: &RopeParameters, head_dim: usize) -> Result<()> {
    let rotary_dim = rope.rotary_dim(head_dim);
    if rotary_dim < 2 || !rotary_dim.is_multiple_of(2) {
        let message = format!("`partial_rotary_factor` rotates `{rotary_dim}` elements of a head");
        return Err(reader.inconsistent(message, Some("an even number of them must be rotated")));
    }
    let RopeScaling::LongRope { short_factor, .. } = &rope.scaling else { return Ok(()) };
    let n_pairs = rotary_dim / 2;
    if short_factor.len() == n_pairs {
        return Ok(());
    }
    let message = format!(
        "`short_factor` and `long_factor` must have one number for each of `{n_pairs}` rotated pairs: `{}`",
        short_factor.len()
    );
    Err(reader.inconsistent(message, None))
}

/// The common keys, then those of the family.
pub(super) fn to_keys(config: &DecoderConfig) -> Map<String, Value> {
    let common = json!({
        "attention_dropout": 0.0,
        "hidden_act": config.hidden_act.name_in_decoders(),
        "hidden_size": config.hidden_size,
        "initializer_range": config.initializer_range,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.layers.len(),
        "num_key_value_heads": config.num_key_value_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": config.rope_parameters().to_json(),
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_cache": true,
        "vocab_size": config.vocab_size,
    });
    let Value::Object(mut keys) = common else { return Map::new() };
    // Families without this key compute the width, and read it where it differs.
    if config.head_dim * config.num_attention_heads != config.hidden_size {
        keys.insert("head_dim".to_owned(), json!(config.head_dim));
    }
    config.rope_parameters().write_older_keys(&mut keys);
    (config.family.entry().write)(config, &mut keys);
    keys
}

/// Numbers and width of attention heads.
struct HeadSizes {
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
}

impl HeadSizes {
    /// Reads and checks them. `default_head_dim` gives the width of a head from the number of heads where the file does
    /// not state it.
    fn read(
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
