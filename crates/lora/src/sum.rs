//! The weighted sum of several adapters on one base model, as one adapter.
//!
//! Σ wᵢ·sᵢ·Bᵢ·Aᵢ is the product of the factors side by side, [w₁·s₁/s·B₁, w₂·s₂/s·B₂, …]·[A₁; A₂; …], so the sum is exact
//! and its rank is the sum of the ranks.

use burn::tensor::Tensor;
use model::Adaptable;
use nn::{Adapter, LoraAdapter};

use crate::{Error, LoraConfig, LoraInit, Result, Targets};

/// The sum of the adapters of `models`, which share their base weights, each times its weight.
///
/// Errors: an adapter is not a plain LoRA on layers of the blocks.
pub fn weighted_sum<M: Adaptable>(
    models: Vec<M>,
    configs: &[LoraConfig],
    weights: &[f64],
) -> Result<(M, LoraConfig)> {
    for config in configs {
        check(config)?;
    }
    let mut models = models;
    if models.iter_mut().any(adapts_other_layers) {
        return Err(Error::NoSum { feature: "an adapter on the embedding or the output layer" });
    }
    let mut models = models.into_iter();
    let Some(mut sum) = models.next() else { return Err(Error::NoAdapter) };
    let mut others: Vec<M> = models.collect();
    let mut ranks: Vec<(String, usize)> = Vec::new();
    let weight = |idx: usize| weights.get(idx).copied().unwrap_or(1.0);
    for (name, slot) in sum.backbone_mut().projections_mut() {
        let mut parts: Vec<(Adapter, f64)> = Vec::new();
        parts.extend(slot.set_adapter(None).map(|adapter| (adapter, weight(0))));
        for (idx, other) in others.iter_mut().enumerate() {
            let mut layers = other.backbone_mut().projections_mut().into_iter();
            let layer = layers.find(|(other, _)| *other == name);
            let adapter = layer.and_then(|(_, layer)| layer.set_adapter(None));
            parts.extend(adapter.map(|adapter| (adapter, weight(idx + 1))));
        }
        if let Some(joined) = joined(parts) {
            ranks.push((name, joined.rank()));
            slot.set_adapter(Some(Adapter::Lora(joined)));
        }
    }
    let Some(rank) = ranks.iter().map(|(_, rank)| *rank).max() else {
        return Err(Error::NoAdapter);
    };
    let other_ranks = ranks.iter().filter(|(_, other)| *other != rank);
    // The whole name, as a pattern; scales are 1, so alpha is the rank.
    let pattern = |(name, rank): &(String, usize)| (name.replace('.', r"\."), *rank);
    let rank_pattern: Vec<(String, usize)> = other_ranks.map(pattern).collect();
    let alpha_pattern = rank_pattern.iter().map(|(name, rank)| (name.clone(), *rank as f64));
    let config = LoraConfig {
        rank,
        alpha: rank as f64,
        alpha_pattern: alpha_pattern.collect(),
        rank_pattern,
        targets: Targets::Names(ranks.into_iter().map(|(name, _)| name).collect()),
        ..LoraConfig::default()
    };
    Ok((sum, config))
}

/// The factors side by side, with all scales and weights in B.
fn joined(parts: Vec<(Adapter, f64)>) -> Option<LoraAdapter> {
    let (mut a, mut b): (Vec<Tensor<2>>, Vec<Tensor<2>>) = (Vec::new(), Vec::new());
    for (adapter, weight) in parts {
        if let Adapter::Lora(lora) = adapter {
            a.push(lora.lora_A.weight.val().inner());
            b.push(lora.lora_B.weight.val().inner().mul_scalar(weight * lora.scale()));
        }
    }
    if a.is_empty() {
        return None;
    }
    Some(LoraAdapter::new(Tensor::cat(a, 0), Tensor::cat(b, 1), 1.0, None))
}

fn adapts_other_layers<M: Adaptable>(model: &mut M) -> bool {
    model.output_layer_mut().is_some_and(|head| head.adapter.is_some())
        || model.backbone_mut().embedding_mut().1.adapter.is_some()
}

fn check(config: &LoraConfig) -> Result<()> {
    let refuse = |feature| Err(Error::NoSum { feature });
    if config.use_dora {
        return refuse("use_dora");
    }
    if config.init != LoraInit::Default {
        return refuse("init");
    }
    if config.lora_bias {
        return refuse("lora_bias");
    }
    if config.bias != arch::BiasTraining::None {
        return refuse("bias");
    }
    if !config.modules_to_save.is_empty() {
        return refuse("modules_to_save");
    }
    if !config.trainable_tokens.is_empty() {
        return refuse("trainable_token_indices");
    }
    Ok(())
}
