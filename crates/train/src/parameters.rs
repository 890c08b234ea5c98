//! Parameter names and values in module order.
//!
//! burn's parameter ids are random numbers, so they serve as no keys.

use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// Names in module order; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterNames {
    names: Arc<[String]>,
}

impl ParameterNames {
    /// The parameter names of a model.
    pub fn of<M: Module>(model: &M) -> Self {
        Self { names: model::parameter_names(model).into() }
    }

    /// Names in the order in which a module visitor sees the parameters.
    pub fn from_names(names: Vec<String>) -> Self {
        Self { names: names.into() }
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether the model has no parameters.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names in module order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The name of the parameter at `idx`.
    pub fn get(&self, idx: usize) -> &str {
        self.names.get(idx).map_or("(unknown parameter)", String::as_str)
    }
}

/// A fingerprint of one parameter for the run-time checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// A hash of all bits.
    pub(crate) hash: u64,
    /// Whether it is trainable.
    pub(crate) trained: bool,
}

/// Fingerprints of all parameters, in module order.
pub(crate) fn fingerprints<M: Module>(model: &M) -> Vec<Fingerprint> {
    let mut out = Vec::new();
    for_each_value(model, |values, _, trained| {
        out.push(Fingerprint { hash: hash(values), trained });
    });
    out
}

/// The largest magnitude in each parameter, in module order.
pub(crate) fn max_abs<M: Module>(model: &M) -> Vec<f32> {
    let mut out = Vec::new();
    for_each_value(model, |values, _, _| {
        out.push(values.iter().fold(0.0_f32, |max, value| max.max(value.abs())));
    });
    out
}

/// Calls `see` with values, shape and trainability of each parameter in module order.
pub(crate) fn for_each_value<M: Module>(model: &M, see: impl FnMut(&[f32], &[usize], bool)) {
    model.visit(&mut Values { see });
}

struct Values<F> {
    see: F,
}

impl<F: FnMut(&[f32], &[usize], bool)> ModuleVisitor for Values<F> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let trained = value.is_require_grad();
        let shape = value.dims();
        let flat: Tensor<1> = value.inner().reshape([shape.iter().product::<usize>()]);
        kernels::with_host_values(&flat, |values| (self.see)(values, &shape, trained));
    }
}

/// A hash that detects changes by an update. Not cryptographic.
fn hash(values: &[f32]) -> u64 {
    let step = |hash: u64, value: &f32| {
        (hash.rotate_left(5) ^ u64::from(value.to_bits())).wrapping_mul(0x517C_C1B7_2722_0A95)
    };
    values.iter().fold(0x9E37_79B9_7F4A_7C15, step)
}
