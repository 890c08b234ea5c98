//! The parameter table of a decoder, in module order.

use super::{DecoderConfig, ExpertNaming, ExpertsConfig, LayerConfig, NormPlacement, QkNorm};
use crate::params::{AxisOrder, Init, LinearShape, ParamSpec, ParamTable};

/// Whether a parameter belongs to one of several experts, so that a step may have no token for it.
pub fn is_expert_parameter(name: &str) -> bool {
    name.contains(".experts.")
}

pub(super) fn language_model(config: &DecoderConfig) -> Vec<ParamSpec> {
    let mut table = backbone(config);
    if !config.tie_word_embeddings {
        let (v, d) = (config.vocab_size, config.hidden_size);
        table.head("lm_head.weight", v, d, config.initializer_range);
    }
    table.finish()
}

pub(super) fn sequence_classifier(config: &DecoderConfig) -> Vec<ParamSpec> {
    let mut table = backbone(config);
    table.head("score.weight", 1, config.hidden_size, config.initializer_range);
    table.finish()
}

fn backbone(config: &DecoderConfig) -> ParamTable {
    let mut table = Table { config, table: ParamTable::default() };
    let shape = [config.vocab_size, config.hidden_size];
    let name = "model.embed_tokens.weight".to_owned();
    table.table.embedding(name, shape, config.initializer_range);
    for (idx, layer) in config.layers.iter().enumerate() {
        table.block(&format!("model.layers.{idx}"), layer);
    }
    table.norm("model.norm", config.hidden_size);
    table.table
}

/// The table so far, and the model that it describes.
struct Table<'a> {
    config: &'a DecoderConfig,
    table: ParamTable,
}

impl Table<'_> {
    fn block(&mut self, prefix: &str, layer: &LayerConfig) {
        let d = self.config.hidden_size;
        self.attention(&format!("{prefix}.self_attn"));
        match &self.config.experts {
            Some(experts) if layer.is_sparse => self.experts(prefix, experts),
            _ => self.mlp(&format!("{prefix}.mlp"), self.config.intermediate_size),
        }
        let norms: &[&str] = match self.config.norm_placement {
            NormPlacement::Before => &["input_layernorm", "post_attention_layernorm"],
            NormPlacement::After => &["post_attention_layernorm", "post_feedforward_layernorm"],
            NormPlacement::Both => &[
                "input_layernorm",
                "post_attention_layernorm",
                "pre_feedforward_layernorm",
                "post_feedforward_layernorm",
            ],
        };
        for name in norms {
            self.norm(&format!("{prefix}.{name}"), d);
        }
    }

    fn attention(&mut self, prefix: &str) {
        let config = self.config;
        let (d, q, kv) = (config.hidden_size, config.query_width(), config.key_value_width());
        let widths: &[(&str, usize)] = if config.is_qkv_packed {
            &[("qkv_proj", q + 2 * kv)]
        } else {
            &[("q_proj", q), ("k_proj", kv), ("v_proj", kv)]
        };
        for (name, d_out) in widths {
            self.linear(&format!("{prefix}.{name}"), d, *d_out, config.qkv_bias);
        }
        self.linear(&format!("{prefix}.o_proj"), q, d, config.o_bias);
        let norms = match config.qk_norm {
            QkNorm::None => return,
            QkNorm::Heads => [config.head_dim; 2],
            QkNorm::Whole => [q, kv],
        };
        self.norm(&format!("{prefix}.q_norm"), norms[0]);
        self.norm(&format!("{prefix}.k_norm"), norms[1]);
    }

    fn mlp(&mut self, prefix: &str, inner: usize) {
        let (d, bias) = (self.config.hidden_size, self.config.mlp_bias);
        if self.config.is_mlp_packed {
            self.linear(&format!("{prefix}.gate_up_proj"), d, 2 * inner, bias);
        } else {
            self.linear(&format!("{prefix}.gate_proj"), d, inner, bias);
            self.linear(&format!("{prefix}.up_proj"), d, inner, bias);
        }
        self.linear(&format!("{prefix}.down_proj"), inner, d, bias);
    }

    fn experts(&mut self, prefix: &str, experts: &ExpertsConfig) {
        let (d, inner) = (self.config.hidden_size, experts.moe_intermediate_size);
        let (module, [gate, up, down]) = match experts.naming {
            ExpertNaming::Mlp => ("mlp", ["gate_proj", "up_proj", "down_proj"]),
            ExpertNaming::BlockSparse => ("block_sparse_moe", ["w1", "w3", "w2"]),
        };
        self.linear(&format!("{prefix}.{module}.gate"), d, experts.num_experts, false);
        for expert in 0..experts.num_experts {
            let expert = format!("{prefix}.{module}.experts.{expert}");
            self.linear(&format!("{expert}.{gate}"), d, inner, false);
            self.linear(&format!("{expert}.{up}"), d, inner, false);
            self.linear(&format!("{expert}.{down}"), inner, d, false);
        }
        if let Some(inner) = experts.shared_expert_intermediate_size {
            self.mlp(&format!("{prefix}.{module}.shared_expert"), inner);
            self.linear(&format!("{prefix}.{module}.shared_expert_gate"), d, 1, false);
        }
    }

    fn linear(&mut self, prefix: &str, d_in: usize, d_out: usize, bias: bool) {
        let shape = LinearShape { d_in, d_out, bias, std: self.config.initializer_range };
        self.table.linear(prefix, AxisOrder::OutIn, shape);
    }

    /// A norm that starts as one without a weight.
    fn norm(&mut self, prefix: &str, width: usize) {
        let init = if self.config.norm_adds_one { Init::Zeros } else { Init::Ones };
        self.table.norm_from(prefix, width, init);
    }
}
