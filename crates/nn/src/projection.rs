//! Linear layers as adapters and fused kernels see them, whatever the layout of their weights.

use burn::module::Param;
use burn::tensor::Tensor;

use crate::weight::widened;
use crate::{Adapter, BaseLayer, FusedForm, RowAdapters, Weight};

/// A linear layer with a slot for an adapter.
pub trait Projection {
    /// The layer without its adapter.
    fn base(&self) -> BaseLayer<'_>;

    /// The weight, to be replaced.
    fn weight_mut(&mut self) -> &mut Weight;

    /// The bias, to be replaced.
    fn bias_mut(&mut self) -> &mut Option<Param<Tensor<1>>>;

    /// The adapter in the slot.
    fn adapter(&self) -> Option<&Adapter>;

    /// Replaces the adapter in the slot and returns the old one.
    fn set_adapter(&mut self, adapter: Option<Adapter>) -> Option<Adapter>;

    /// `(in, out)`
    fn widths(&self) -> (usize, usize) {
        self.base().widths()
    }

    /// `[b, t, in]` → `[b, t, out]`.
    fn apply(&self, x_bti: Tensor<3>) -> Tensor<3> {
        forward(self.base(), self.adapter(), x_bti)
    }

    /// The layer as fused kernels read it; `None` if its weight is packed or its adapter is not a plain low-rank product.
    fn linear_map(&self) -> Option<kernels::LinearMap> {
        let base = self.base();
        let adapter = match self.adapter().map_or(FusedForm::Nothing, Adapter::fused_form) {
            FusedForm::Nothing => None,
            FusedForm::Product(adapter) => Some(adapter),
            FusedForm::Other => return None,
        };
        base.linear_map(adapter)
    }

    /// The weight with the adapter's change, `[out, in]`; see [`Adapter::effective_weight`].
    fn effective_weight(&self) -> Tensor<2> {
        match self.adapter() {
            Some(adapter) => adapter.effective_weight(self.base().weight_f32_oi()),
            None => self.base().weight_oi(),
        }
    }

    /// Merges the adapter into weight and bias and returns it; the slot is empty then. What the adapter adds to a bias that
    /// the layer does not have is lost.
    fn merge_adapter(&mut self) -> Option<Adapter> {
        let adapter = self.set_adapter(None)?;
        let layout = self.base().layout;
        self.weight_mut().update(|weight| match layout {
            kernels::WeightLayout::OutIn => adapter.merge(widened(weight)),
            kernels::WeightLayout::InOut => {
                row_major(adapter.merge(widened(weight).transpose()).transpose())
            }
        });
        if let (Some(change_o), Some(bias)) = (adapter.bias(), self.bias_mut()) {
            *bias = kernels::update_param(bias.clone(), |bias_o| bias_o + change_o);
        }
        Some(adapter)
    }
}

/// A layer under its name.
pub type NamedProjection<'a> = (String, &'a mut dyn Projection);

/// The layers with `prefix` and a dot before their names.
pub fn prefixed<'a>(
    prefix: &str,
    layers: impl IntoIterator<Item = NamedProjection<'a>>,
) -> Vec<NamedProjection<'a>> {
    layers.into_iter().map(|(name, layer)| (format!("{prefix}.{name}"), layer)).collect()
}

/// The output of a layer with an adapter or without one.
pub(crate) fn forward<const D: usize>(
    base: BaseLayer<'_>,
    adapter: Option<&Adapter>,
    x: Tensor<D>,
) -> Tensor<D> {
    match adapter {
        None => base.forward(x),
        Some(adapter) => adapter.forward(x.clone(), base, base.forward(x)),
    }
}

/// The same values without a transposed view: kernels would copy one at each use.
fn row_major(weight: Tensor<2>) -> Tensor<2> {
    let device = weight.device();
    Tensor::from_data(weight.into_data(), &device)
}

/// Pins the dropout masks of the layers' adapters; see [`Adapter::with_pinned_dropout`].
pub fn pin_dropout<'a>(layers: impl IntoIterator<Item = &'a mut dyn Projection>) {
    for layer in layers {
        if let Some(adapter) = layer.set_adapter(None) {
            layer.set_adapter(Some(adapter.with_pinned_dropout()));
        }
    }
}

/// Applies `layers` to one input, concatenates their outputs and adds `residual`; in one fused kernel where each layer
/// has a form for it.
pub fn fused_linear(
    input: kernels::LinearInput,
    layers: &[&dyn Projection],
    residual_bto: Option<Tensor<3>>,
) -> Tensor<3> {
    let maps: Option<Vec<_>> = layers.iter().map(|layer| layer.linear_map()).collect();
    if let Some(maps) = maps {
        return kernels::fused_linear(input, &maps, residual_bto);
    }
    if layers.iter().any(|layer| row_adapters(*layer).is_some())
        && let Some(out_bto) = fused_by_row(&input, layers, residual_bto.as_ref())
    {
        return out_bto;
    }
    let x_bti = input.tensor();
    let outs = layers.iter().map(|layer| layer.apply(x_bti.clone())).collect();
    let out_bto = Tensor::cat(outs, 2);
    match residual_bto {
        Some(residual_bto) => out_bto + residual_bto,
        None => out_bto,
    }
}

fn row_adapters(layer: &dyn Projection) -> Option<&RowAdapters> {
    match layer.adapter()? {
        Adapter::ByRow(adapters) => Some(adapters),
        Adapter::Lora(_) | Adapter::Dora(_) | Adapter::Tokens(_) => None,
    }
}

/// As [`fused_linear`], where rows have different adapters: those of the base layers in one fused kernel, and the change of
/// each layer. `None` if a base layer is packed or has another adapter.
fn fused_by_row(
    input: &kernels::LinearInput,
    layers: &[&dyn Projection],
    residual_bto: Option<&Tensor<3>>,
) -> Option<Tensor<3>> {
    let is_plain = |layer: &&dyn Projection| layer.adapter().is_none();
    let of_base = |layer: &&dyn Projection| {
        let may_fuse = is_plain(layer) || row_adapters(*layer).is_some();
        layer.base().linear_map(None).filter(|_| may_fuse)
    };
    let maps: Vec<_> = layers.iter().map(of_base).collect::<Option<_>>()?;
    let out_bto = kernels::fused_linear(input.clone(), &maps, residual_bto.cloned());
    let x_bti = input.clone().tensor();
    let [b, t, _] = x_bti.dims();
    let changes = layers.iter().map(|layer| match row_adapters(*layer) {
        Some(adapters) => adapters.change(x_bti.clone()),
        None => Tensor::zeros([b, t, layer.widths().1], &x_bti.device()),
    });
    let mut changes: Vec<Tensor<3>> = changes.collect();
    let change_bto = if changes.len() == 1 { changes.remove(0) } else { Tensor::cat(changes, 2) };
    Some(out_bto + change_bto)
}
