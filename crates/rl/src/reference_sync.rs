//! A reference model that follows the policy: w_ref ← α w + (1 − α) w_ref (TR-DPO; Gorbatovski et al. 2024, equation 5).

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use kernels::update_param;
use model::CausalLm;

/// `model` with its trained weights moved towards those of `other` by the share `alpha`; 1 copies them. The models have one
/// shape; `of` says which parameters are trained. Other weights stay shared.
pub fn moved_towards(model: CausalLm, other: &CausalLm, alpha: f64, of: &CausalLm) -> CausalLm {
    let mut trained = Trained::default();
    of.visit(&mut trained);
    let mut values = Values { trained: trained.0.into_iter(), values: Vec::new() };
    other.visit(&mut values);
    model.map(&mut Move { values: values.values.into_iter(), alpha })
}

/// Whether each parameter is trained, in module order.
#[derive(Default)]
struct Trained(Vec<bool>);

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().is_require_grad());
    }
}

/// The values of trained parameters, flat and off the autodiff device; `None` for others.
struct Values {
    trained: std::vec::IntoIter<bool>,
    values: Vec<Option<Tensor<1>>>,
}

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let is_trained = self.trained.next().unwrap_or(false);
        self.values.push(is_trained.then(|| {
            let value = param.val().inner();
            let n = value.shape().num_elements();
            value.reshape([n])
        }));
    }
}

struct Move {
    values: std::vec::IntoIter<Option<Tensor<1>>>,
    alpha: f64,
}

impl ModuleMapper for Move {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(Some(other)) = self.values.next() else { return param };
        update_param(param, |own| {
            let other = other.reshape(own.dims());
            if self.alpha < 1.0 {
                own.mul_scalar(1.0 - self.alpha) + other.mul_scalar(self.alpha)
            } else {
                other
            }
        })
    }
}
