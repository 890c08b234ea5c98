//! AdamW with both moments quantised to 8 bits (Dettmers et al. 2022).
//!
//! A block's moments are dequantised, updated in f32, used, and quantised again, so nothing but the moments between two
//! steps is coarse. The arithmetic is on the host: elsewhere weights and gradients are copied there and back.

use burn::tensor::{Tensor, TensorData};
use kernels::AllThreads as _;
use kernels::{AdamwStep, with_host_values};
use plan::optimizer::QUANTISED_BLOCK as BLOCK;
use rayon::prelude::*;
use recipe::AdamwKeys;

use super::adamw;
use super::blockwise::{Quantised, signed, unsigned};
use super::state::{ParameterState, StateReader, StateTensor, Step};
use crate::Result;
use crate::saved_tensors::TensorValues;

/// Blocks that one task updates.
const TASK_BLOCKS: usize = 64;

/// First moment in the signed code, second in the unsigned one.
#[derive(Debug)]
pub(super) struct AdamW8bit {
    keys: AdamwKeys,
    shape: Vec<usize>,
    m: Quantised,
    v: Quantised,
}

impl AdamW8bit {
    /// Zeros for a parameter of this shape.
    pub(super) fn new(keys: AdamwKeys, shape: &[usize]) -> Self {
        let n = shape.iter().product();
        let (m, v) = (Quantised::zeros(n, signed()), Quantised::zeros(n, unsigned()));
        Self { keys, shape: shape.to_vec(), m, v }
    }
}

impl ParameterState for AdamW8bit {
    fn update(&mut self, weight: Tensor<1>, gradient: Tensor<1>, step: &Step) -> Tensor<1> {
        let coefficients = Coefficients::new(&adamw::settings(&self.keys, step));
        let device = weight.device();
        let updated = with_host_values(&weight, |weight| {
            with_host_values(&gradient, |gradient| {
                update_all(weight, gradient, &mut self.m, &mut self.v, coefficients)
            })
        });
        let n = updated.len();
        Tensor::from_data(TensorData::new(updated, [n]), &device)
    }

    fn tensors(&self) -> Vec<StateTensor<'_>> {
        let moments = [("m.codes", "m.absmax", &self.m), ("v.codes", "v.absmax", &self.v)];
        let tensors = moments.map(|(codes, absmax, moment)| {
            let codes = StateTensor {
                prefix: codes,
                shape: self.shape.clone(),
                values: TensorValues::U8(&moment.codes),
            };
            let absmax = StateTensor {
                prefix: absmax,
                shape: vec![moment.absmax.len()],
                values: TensorValues::HostF32(&moment.absmax),
            };
            [codes, absmax]
        });
        tensors.into_iter().flatten().collect()
    }

    fn restore(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        let n_blocks = [self.m.absmax.len()];
        self.m.codes = saved.u8("m.codes", &self.shape)?;
        self.m.absmax = saved.host_f32("m.absmax", &n_blocks)?;
        self.v.codes = saved.u8("v.codes", &self.shape)?;
        self.v.absmax = saved.host_f32("v.absmax", &n_blocks)?;
        Ok(())
    }
}

/// Everything that doesn't depend on the element, computed in f64.
#[derive(Clone, Copy)]
struct Coefficients {
    grad_scale: f32,
    betas: [f32; 2],
    one_minus_betas: [f32; 2],
    keep: f32,
    step_size: f32,
    inverse_root_correction2: f32,
    eps: f32,
}

impl Coefficients {
    fn new(step: &AdamwStep) -> Self {
        let betas = [step.beta1, step.beta2];
        let [correction1, correction2] = betas.map(|beta| 1.0 - beta.powf(step.step as f64));
        Self {
            grad_scale: step.grad_scale as f32,
            betas: betas.map(|beta| beta as f32),
            one_minus_betas: betas.map(|beta| (1.0 - beta) as f32),
            keep: (1.0 - step.lr * step.weight_decay) as f32,
            step_size: (step.lr / correction1) as f32,
            inverse_root_correction2: (1.0 / correction2.sqrt()) as f32,
            eps: step.eps as f32,
        }
    }
}

/// Updates the moments and returns the new weights.
fn update_all(
    weight: &[f32],
    gradient: &[f32],
    m: &mut Quantised,
    v: &mut Quantised,
    coefficients: Coefficients,
) -> Vec<f32> {
    const TASK: usize = TASK_BLOCKS * BLOCK;
    let mut updated = weight.to_vec();
    let weights = updated.par_chunks_mut(TASK).zip(gradient.par_chunks(TASK));
    let m = m.codes.par_chunks_mut(TASK).zip(m.absmax.par_chunks_mut(TASK_BLOCKS));
    let v = v.codes.par_chunks_mut(TASK).zip(v.absmax.par_chunks_mut(TASK_BLOCKS));
    weights.zip(m).zip(v).on_all_threads(|(((weight, gradient), (m, m_absmax)), (v, v_absmax))| {
        let weights = weight.chunks_mut(BLOCK).zip(gradient.chunks(BLOCK));
        let m = m.chunks_mut(BLOCK).zip(m_absmax);
        let v = v.chunks_mut(BLOCK).zip(v_absmax);
        for (((weight, gradient), (m, m_absmax)), (v, v_absmax)) in weights.zip(m).zip(v) {
            let (m, v) =
                (Block { codes: m, absmax: m_absmax }, Block { codes: v, absmax: v_absmax });
            update_block(weight, gradient, m, v, coefficients);
        }
    });
    updated
}

/// One block of a moment.
struct Block<'a> {
    codes: &'a mut [u8],
    absmax: &'a mut f32,
}

fn update_block(weight: &mut [f32], gradient: &[f32], m: Block, v: Block, c: Coefficients) {
    let (m_code, v_code) = (signed(), unsigned());
    let (mut m_values, mut v_values) = ([0.0_f32; BLOCK], [0.0_f32; BLOCK]);
    let moments = m_values.iter_mut().zip(&mut v_values).zip(m.codes.iter().zip(v.codes.iter()));
    for ((w, g), ((m_value, v_value), (m_byte, v_byte))) in
        weight.iter_mut().zip(gradient).zip(moments)
    {
        let g = g * c.grad_scale;
        let (old_m, old_v) = (m_code.value(*m_byte) * *m.absmax, v_code.value(*v_byte) * *v.absmax);
        *m_value = c.betas[0] * old_m + c.one_minus_betas[0] * g;
        *v_value = c.betas[1] * old_v + c.one_minus_betas[1] * g * g;
        let denominator = v_value.sqrt() * c.inverse_root_correction2 + c.eps;
        *w = *w * c.keep - c.step_size * (*m_value / denominator);
    }
    let (m_values, v_values) = (&m_values[..weight.len()], &v_values[..weight.len()]);
    *m.absmax = m_code.quantise(m_values, m.codes);
    *v.absmax = v_code.quantise(v_values, v.codes);
    // A second moment that became 0 beside a first moment that did not would make the next step huge.
    for (code, value) in v.codes.iter_mut().zip(v_values) {
        if *code == 0 && *value > 0.0 {
            *code = 1;
        }
    }
}
