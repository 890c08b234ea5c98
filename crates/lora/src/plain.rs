//! Conversion of an adapter whose factors were taken out of the weights (PiSSA, OLoRA) to a plain LoRA of twice the rank.
//!
//! With W = R + s·B₀·A₀, the adapted weight R + s·B·A is W + s·(B·A − B₀·A₀) = W + s·[B, −B₀]·[A; A₀] (Meng et al. 2024,
//! appendix C). The new factors belong to the unchanged base model.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use model::Adaptable;
use nn::{Adapter, LoraAdapter, Projection};

use crate::attach::{attach_from, layout_of, untied};
use crate::build::StartingValues;
use crate::{Adapted, LoraConfig, LoraInit, Result};

/// The adapter as one for the unchanged `base`, and its configuration; both unchanged if the base weights are, or if DoRA's
/// magnitudes do not allow a conversion.
pub fn as_plain_lora<M: Adaptable>(
    mut model: M,
    base: M,
    config: &LoraConfig,
) -> Result<(M, LoraConfig)> {
    if config.init == LoraInit::Default || config.use_dora {
        return Ok((model, config.clone()));
    }
    let layout = layout_of(&base, config)?;
    let mut untouched = untied(base.clone(), &layout)?;
    // The factors that were taken out do not depend on a seed.
    let Adapted { model: mut started, .. } =
        attach_from(untied(base, &layout)?, config, &layout, &mut StartingValues { seed: 0 })?;
    let mut starts: BTreeMap<String, (Adapter, nn::Weight)> = BTreeMap::new();
    let of_base = untouched.backbone_mut().projections_mut().into_iter();
    for ((name, start), (_, base)) in
        started.backbone_mut().projections_mut().into_iter().zip(of_base)
    {
        if let Some(adapter) = start.adapter() {
            starts.insert(name, (adapter.clone(), base.base().weight.clone()));
        }
    }
    for (name, slot) in model.backbone_mut().projections_mut() {
        if let Some(start) = starts.remove(&name) {
            join(slot, start);
        }
    }
    if let (Some(slot), Some(start), Some(base)) =
        (model.output_layer_mut(), started.output_layer_mut(), untouched.output_layer_mut())
        && let Some(adapter) = start.adapter.clone()
    {
        join(slot, (adapter, base.weight.clone()));
    }
    Ok((model, doubled(config)))
}

/// Joins the factors of a layer with those that it started with, and puts the base weight back.
fn join(slot: &mut dyn Projection, (start, weight): (Adapter, nn::Weight)) {
    let (Some(Adapter::Lora(now)), Adapter::Lora(start)) = (slot.adapter(), start) else { return };
    let (a, b) = (now.lora_A.weight.val().inner(), now.lora_B.weight.val().inner());
    let (a_start, b_start) = (start.lora_A.weight.val().inner(), start.lora_B.weight.val().inner());
    let joined = LoraAdapter::new(
        Tensor::cat(vec![a, a_start], 0),
        Tensor::cat(vec![b, b_start.neg()], 1),
        now.scale(),
        None,
    );
    slot.set_adapter(Some(Adapter::Lora(joined)));
    *slot.weight_mut() = weight;
}

/// Twice the ranks at the same scales.
fn doubled(config: &LoraConfig) -> LoraConfig {
    let factor = if config.rslora { std::f64::consts::SQRT_2 } else { 2.0 };
    let ranks = config.rank_pattern.iter().map(|(pattern, rank)| (pattern.clone(), 2 * rank));
    let alphas =
        config.alpha_pattern.iter().map(|(pattern, alpha)| (pattern.clone(), factor * alpha));
    LoraConfig {
        rank: 2 * config.rank,
        alpha: factor * config.alpha,
        rank_pattern: ranks.collect(),
        alpha_pattern: alphas.collect(),
        init: LoraInit::Default,
        ..config.clone()
    }
}
