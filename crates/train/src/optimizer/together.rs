//! AdamW updates of many parameters at once, where a device takes fewer launches for them.
//!
//! Weights leave the model for the update, so that no other handle keeps a buffer from being changed in place.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use kernels::{AdamwParameter, AdamwStep, Moments, adamw_steps, update_param};

use super::Slot;

/// Parameters that wait for their update, by their index.
#[derive(Debug, Default)]
pub(super) struct Together {
    indices: Vec<usize>,
    parameters: Vec<AdamwParameter>,
}

impl Together {
    /// Takes a weight and its moments and leaves tensors of one value in their places.
    pub(super) fn take<const D: usize>(
        &mut self,
        idx: usize,
        param: Param<Tensor<D>>,
        grad: Tensor<1>,
        (moments, step): (&mut Moments, AdamwStep),
    ) -> Param<Tensor<D>> {
        update_param(param, |weight| {
            let device = weight.device();
            let one = || Tensor::empty([1], &device);
            let moments = std::mem::replace(moments, Moments { m: one(), v: one() });
            let n: usize = weight.dims().iter().product();
            let weight = weight.reshape([n]);
            self.indices.push(idx);
            self.parameters.push(AdamwParameter { weight, grad, moments, step });
            Tensor::empty([1; D], &device)
        })
    }

    /// Updates what was taken and puts it back.
    pub(super) fn put_back<M: Module>(self, model: M, slots: &mut [Slot]) -> M {
        if self.indices.is_empty() {
            return model;
        }
        let updated = self.indices.into_iter().zip(adamw_steps(self.parameters)).collect();
        model.map(&mut PutBack { updated, slots, idx: 0 })
    }
}

struct PutBack<'a> {
    updated: BTreeMap<usize, (Tensor<1>, Moments)>,
    slots: &'a mut [Slot],
    idx: usize,
}

impl ModuleMapper for PutBack<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let idx = self.idx;
        self.idx += 1;
        let Some((weight, moments)) = self.updated.remove(&idx) else { return param };
        let Some(slot) = self.slots.get_mut(idx) else { return param };
        if let Some((place, _)) = slot.state.as_mut().and_then(|state| state.adamw()) {
            *place = moments;
        }
        let shape = slot.parameter.shape.clone();
        update_param(param, |_| weight.reshape::<D, _>(burn::tensor::Shape::from(shape)))
    }
}
