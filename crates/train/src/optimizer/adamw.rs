//! AdamW (Loshchilov and Hutter 2019, algorithm 2), moments in f32. The arithmetic is [`kernels::adamw_step`].

use burn::tensor::{Device, Tensor};
use kernels::{AdamwStep, Moments, adamw_step};
use recipe::AdamwKeys;

use super::state::{ParameterState, StateReader, StateTensor, Step};
use crate::Result;

/// First and second moment.
#[derive(Debug)]
pub(super) struct AdamW {
    keys: AdamwKeys,
    shape: Vec<usize>,
    moments: Moments,
}

impl AdamW {
    /// Zeros for a parameter of this shape.
    pub(super) fn new(keys: AdamwKeys, shape: &[usize], device: &Device) -> Self {
        let zeros = || Tensor::zeros([shape.iter().product::<usize>()], device);
        Self { keys, shape: shape.to_vec(), moments: Moments { m: zeros(), v: zeros() } }
    }
}

impl ParameterState for AdamW {
    fn update(&mut self, weight: Tensor<1>, gradient: Tensor<1>, step: &Step) -> Tensor<1> {
        adamw_step(weight, gradient, &mut self.moments, &settings(&self.keys, step))
    }

    fn adamw(&mut self) -> Option<(&mut Moments, AdamwKeys)> {
        Some((&mut self.moments, self.keys))
    }

    fn tensors(&self) -> Vec<StateTensor<'_>> {
        vec![
            StateTensor::f32("m", &self.shape, &self.moments.m),
            StateTensor::f32("v", &self.shape, &self.moments.v),
        ]
    }

    fn restore(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        self.moments.m = saved.f32("m", &self.shape)?;
        self.moments.v = saved.f32("v", &self.shape)?;
        Ok(())
    }
}

/// The settings of a step as `kernels` takes them.
pub(super) fn settings(keys: &AdamwKeys, step: &Step) -> AdamwStep {
    AdamwStep {
        lr: step.lr,
        beta1: keys.betas[0],
        beta2: keys.betas[1],
        eps: keys.eps,
        weight_decay: step.weight_decay,
        step: step.number,
        grad_scale: step.grad_scale,
    }
}
