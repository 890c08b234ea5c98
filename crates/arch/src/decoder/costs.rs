//! Active parameters and activation counts of a decoder.

use super::{DecoderConfig, NormPlacement, QkNorm, is_expert_parameter};
use crate::activation::Activation;
use crate::cost::{ActivationCount, KernelPath};
use crate::family_config::FamilyConfig;
use crate::params::{ParamKind, ParamSpec};

/// Elements of the parameters of accepted kinds that a token uses: of experts, the share that it is sent to.
pub(super) fn n_active(config: &DecoderConfig, accepts: impl Fn(ParamKind) -> bool) -> u64 {
    let count = |is_expert: bool| -> u64 {
        let counted =
            |spec: &&ParamSpec| accepts(spec.kind) && is_expert_parameter(&spec.name) == is_expert;
        config.parameters().iter().filter(counted).map(ParamSpec::n_elements).sum()
    };
    match &config.experts {
        None => count(false),
        Some(experts) => {
            let (used, all) = (experts.num_experts_per_tok as u64, experts.num_experts as u64);
            count(false) + count(true) / all.max(1) * used
        }
    }
}

/// Elements that a block holds or uses.
pub(super) fn activations(config: &DecoderConfig, kernel_path: KernelPath) -> ActivationCount {
    let d = config.hidden_size as u64;
    let (q, kv) = (config.query_width() as u64, config.key_value_width() as u64);
    let inner = inner_width(config);
    let (block, of_norm_weights) = match kernel_path {
        // Queries, keys, values, attention output, the residual stream between the halves, gate and up, scales of norms.
        KernelPath::Cpu => (2 * q + 2 * kv + d + 2 * inner + 2, 0),
        // Five of norms and residual sums; two of each head vector; gate, up and their product; tables.
        KernelPath::Generic => (5 * d + 2 * q + 2 * kv + 3 * inner + 29, 2 * d),
    };
    // More positions get angles when a text needs them.
    let n_tabled = config.max_position_embeddings.min(4096);
    let largest = match &config.experts {
        Some(experts) => config.intermediate_size.max(experts.moe_intermediate_size) as u64,
        None => config.intermediate_size as u64,
    };
    ActivationCount {
        block: block + of_variants(config),
        of_norm_weights,
        final_norm: [d, d],
        working: 4 * inner + d,
        matrix: largest.saturating_mul(d),
        fixed: (config.ropes.len() * n_tabled * config.head_dim) as u64,
        other: config.head_dim as u64 + 16,
    }
}

/// Width inside all MLPs that a token goes through.
fn inner_width(config: &DecoderConfig) -> u64 {
    let Some(experts) = &config.experts else { return config.intermediate_size as u64 };
    let sparse = experts.num_experts_per_tok * experts.moe_intermediate_size
        + experts.shared_expert_intermediate_size.unwrap_or(0);
    // Of a model that has both, the larger is the estimate.
    if config.layers.iter().all(|layer| layer.is_sparse) {
        sparse as u64
    } else {
        sparse.max(config.intermediate_size) as u64
    }
}

/// Parameters of a block of this family beyond Llama's.
fn of_variants(config: &DecoderConfig) -> u64 {
    let d = config.hidden_size as u64;
    let rotated = (config.query_width() + config.key_value_width()) as u64;
    let inner = config.intermediate_size as u64;
    let of_qk_norm = match config.qk_norm {
        QkNorm::None => 0,
        // Queries and keys are kept as split from the projection, normalised, and rotated, in place of packed.
        QkNorm::Heads | QkNorm::Whole => 3 * rotated,
    };
    // The input, its quotient by the root mean square and the scaled output of each norm after a half.
    let of_post_norms = match config.norm_placement {
        NormPlacement::Before => 0,
        NormPlacement::After | NormPlacement::Both => 2 * 3 * d,
    };
    // The activation of the gate, and both halves as separate tensors. SiLU has a kernel for all of it.
    let of_activation = match config.hidden_act {
        Activation::Silu => 0,
        Activation::GeluTanh | Activation::GeluExact | Activation::Relu => 2 * inner,
    };
    let of_scales = if config.residual_multiplier == 1.0 { 0 } else { 2 * d };
    // Gathered inputs, outputs and weighted outputs of a token's experts.
    let of_experts = config.experts.as_ref().map_or(0, |experts| {
        4 * d * experts.num_experts_per_tok as u64 + 4 * experts.num_experts as u64
    });
    of_qk_norm + of_post_norms + of_activation + of_scales + of_experts
}
