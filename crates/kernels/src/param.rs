//! Updates of a parameter's value without a copy.

use burn::module::Param;
use burn::tensor::Tensor;

/// Replaces a parameter's value by `update(value)`, keeping identity, device and `require_grad`.
///
/// `update` gets the value off the autodiff device. If the parameter has no other owner (the graph is consumed, copies
/// of the model are dropped), the value is the only handle, and writing to it in place copies nothing.
pub fn update_param<const D: usize>(
    param: Param<Tensor<D>>,
    update: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Param<Tensor<D>> {
    let (id, value, mapper) = param.consume();
    let requires_grad = value.is_require_grad();
    let strategy = value.gradient_checkpointing_strategy();
    let value = update(value.inner());
    let value = match strategy {
        Some(strategy) => value
            .autodiff()
            .with_gradient_checkpointing_strategy(strategy)
            .set_require_grad(requires_grad),
        None => value,
    };
    Param::from_mapped_value(id, value, mapper)
}
