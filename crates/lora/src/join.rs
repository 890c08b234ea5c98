//! Models that are adapters of one base model, joined into one model whose rows choose an adapter.

use model::{Adaptable, CausalLm, has_same_parameters};
use nn::{Adapter, AdapterRows, LoraAdapter, RowAdapters};

use crate::merge::{detach, is_packed};

/// Whether a model is `base` with low-rank adapters in the layers of its blocks and differs in nothing else.
///
/// Weights that share their memory are not compared value by value.
pub fn is_joinable(base: &CausalLm, adapted: &CausalLm) -> bool {
    let mut adapted = adapted.clone();
    if is_packed(&mut adapted) || is_packed(&mut base.clone()) || base.config() != adapted.config()
    {
        return false;
    }
    let layers = adapted.backbone.projections_mut();
    if !layers.iter().all(|(_, layer)| layer.adapter().is_none_or(is_low_rank)) {
        return false;
    }
    let outside = adapted.output_layer_mut().is_some_and(|head| head.adapter.is_some())
        || adapted.backbone.embedding_mut().1.adapter.is_some();
    !outside && has_same_parameters(base, &detach(adapted).0)
}

/// Joins `base` and models that are [`is_joinable`] with it. The number of an adapter is its place in the list.
///
/// # Panics
/// If a model is not joinable.
pub fn join(mut base: CausalLm, adapted: Vec<CausalLm>) -> CausalLm {
    let rows = AdapterRows::default();
    let mut of_models: Vec<_> = adapted.into_iter().map(adapters).map(Vec::into_iter).collect();
    for (_, layer) in base.backbone.projections_mut() {
        let of_layer: Vec<_> = of_models.iter_mut().map(|of| of.next().flatten()).collect();
        if of_layer.iter().any(Option::is_some) {
            layer.set_adapter(Some(Adapter::ByRow(RowAdapters::new(of_layer, rows.clone()))));
        }
    }
    base.with_adapter_rows(rows)
}

/// The adapter of each layer.
fn adapters(mut model: CausalLm) -> Vec<Option<LoraAdapter>> {
    let layers = model.backbone.projections_mut().into_iter();
    let of_layer = |adapter| match adapter {
        Adapter::Lora(lora) => lora.without_dropout(),
        Adapter::Dora(_) | Adapter::Tokens(_) | Adapter::ByRow(_) => {
            panic!("a model that is not joinable")
        }
    };
    layers.map(|(_, layer)| layer.set_adapter(None).map(of_layer)).collect()
}

fn is_low_rank(adapter: &Adapter) -> bool {
    match adapter {
        Adapter::Lora(lora) => lora.lora_B.bias.is_none(),
        Adapter::Dora(_) | Adapter::Tokens(_) | Adapter::ByRow(_) => false,
    }
}
