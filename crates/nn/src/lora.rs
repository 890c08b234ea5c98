//! Low-rank adapters: `x·Wᵀ + scale · (x·Aᵀ)·Bᵀ` (Hu et al. 2021, section 4.1), with dropout before A.
//!
//! Training never forms the dense update B·A. The crate lora chooses layers and starting values.
// PEFT's names; a field path is a checkpoint key.
#![allow(non_snake_case)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use seed::{Purpose, Rng};

/// One of an adapter's two matrices.
#[derive(Module, Debug)]
pub struct LoraFactor {
    /// `[r, in]` or `[out, r]`
    pub weight: Param<Tensor<2>>,
    /// `[out]`, of B alone
    pub bias: Option<Param<Tensor<1>>>,
}

/// The two factors of a layer's update and their scale.
#[derive(Module, Debug)]
pub struct LoraAdapter {
    /// `[r, in]`
    pub lora_A: LoraFactor,
    /// `[out, r]`
    pub lora_B: LoraFactor,
    #[module(skip)]
    scale: f64,
    #[module(skip)]
    dropout: Option<LoraDropout>,
}

/// Dropout of an adapter's input. Masks are a function of a key and the layer's name.
#[derive(Clone, Debug)]
pub struct LoraDropout {
    probability: f64,
    layer: String,
    key: DropoutKey,
    /// Whether it is active even if no factor is trained.
    always: bool,
}

/// The key of the current forward's masks, shared by all adapters of a model.
///
/// A stage sets it before each tracked forward, so that masks are a function of the run's seed, the
/// step and the micro-batch, and a resumed run draws the same ones.
#[derive(Clone, Debug, Default)]
pub struct DropoutKey(Arc<AtomicU64>);

impl DropoutKey {
    /// Sets the key of the forwards that follow.
    pub fn set(&self, key: u64) {
        // 0 means that no key has been set.
        self.0.store(key.max(1), Ordering::Relaxed);
    }

    fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|key| *key != 0)
    }
}

impl LoraDropout {
    /// Drops each value with the given probability, in `0..1`; `layer` is the layer's name.
    pub fn new(probability: f64, layer: String, key: DropoutKey) -> Self {
        Self { probability, layer, key, always: false }
    }

    /// `x` with dropped values at 0 and the others scaled up, which keeps the mean.
    pub(crate) fn apply<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let Some(key) = self.key.get() else {
            panic!("adapters with dropout need the key of each tracked forward: `{}`", self.layer)
        };
        let shape = x.dims();
        let key = seed::derive(key, &self.layer, Purpose::Dropout, 0, 0);
        let mask = dropout_mask(shape.iter().product(), key, self.probability);
        let mask = Tensor::<D>::from_data(TensorData::new(mask, shape), &x.device());
        x * mask
    }
}

/// 0 with the given probability, else the factor that keeps the mean: the first `n` draws of a stream.
fn dropout_mask(n: usize, key: u64, probability: f64) -> Vec<f32> {
    /// Draws at a time, which stay in the fastest cache.
    const DRAWS: usize = 512;
    let kept = (1.0 / (1.0 - probability)) as f32;
    kernels::fill_parts(n, |start, part| {
        let mut rng = Rng::at(key, start as u64);
        let mut draws = [0.0; DRAWS];
        for mask in part.chunks_mut(DRAWS) {
            let draws = &mut draws[..mask.len()];
            rng.fill_f64(draws);
            for (mask, draw) in mask.iter_mut().zip(draws) {
                *mask = if *draw < probability { 0.0 } else { kept };
            }
        }
    })
}

impl LoraAdapter {
    /// An adapter of given factors, `[r, in]` and `[out, r]`.
    ///
    /// # Panics
    /// If the factors have different ranks.
    pub fn new(
        lora_a_ri: Tensor<2>,
        lora_b_or: Tensor<2>,
        scale: f64,
        dropout: Option<LoraDropout>,
    ) -> Self {
        assert_eq!(lora_a_ri.dims()[0], lora_b_or.dims()[1], "the rank of both factors");
        let factor = |weight| LoraFactor { weight: Param::from_tensor(weight), bias: None };
        Self { lora_A: factor(lora_a_ri), lora_B: factor(lora_b_or), scale, dropout }
    }

    /// The same adapter with a bias of B, `[out]`.
    #[must_use]
    pub fn with_bias(mut self, bias_o: Tensor<1>) -> Self {
        self.lora_B.bias = Some(Param::from_tensor(bias_o));
        self
    }

    /// The same adapter without dropout.
    #[must_use]
    pub fn without_dropout(self) -> Self {
        Self { dropout: None, ..self }
    }

    /// See [`crate::Adapter::with_pinned_dropout`].
    pub(crate) fn with_pinned_dropout(self) -> Self {
        let dropout = self.dropout.map(|dropout| {
            let key = DropoutKey(Arc::new(AtomicU64::new(dropout.key.0.load(Ordering::Relaxed))));
            LoraDropout { key, always: true, ..dropout }
        });
        Self { dropout, ..self }
    }

    /// The dropout, if it is active: it acts in training only.
    pub(crate) fn active_dropout(&self) -> Option<&LoraDropout> {
        let is_trained = self.lora_A.weight.is_require_grad();
        self.dropout.as_ref().filter(|dropout| dropout.always || is_trained)
    }

    /// The width between the factors.
    pub fn rank(&self) -> usize {
        self.lora_A.weight.dims()[0]
    }

    /// The factor of B·A.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Adds the adapter's product with `x` to `y`: `[.., in]` and `[.., out]` → `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>, y: Tensor<D>) -> Tensor<D> {
        let (a_ri, b_or) = (self.lora_A.weight.val(), self.lora_B.weight.val());
        let x = match self.active_dropout() {
            Some(dropout) => dropout.apply(x),
            None => x,
        };
        let y = match &self.lora_B.bias {
            Some(bias) => y + bias.val().mul_scalar(self.scale).unsqueeze(),
            None => y,
        };
        kernels::add_lora(y, x, a_ri, b_or, self.scale)
    }

    /// `scale · (x·Aᵀ)·Bᵀ` without dropout and bias: `[.., in]` → `[.., out]`.
    pub(crate) fn product<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let narrow = kernels::linear(x, self.lora_A.weight.val(), None).mul_scalar(self.scale);
        kernels::linear(narrow, self.lora_B.weight.val(), None)
    }

    /// See [`crate::Adapter::fused_form`].
    pub(crate) fn low_rank(&self) -> Option<kernels::Adapter> {
        if self.active_dropout().is_some() || self.lora_B.bias.is_some() {
            return None;
        }
        let a_ri = self.lora_A.weight.val();
        Some(kernels::Adapter { a_ri, b_or: self.lora_B.weight.val(), scale: self.scale })
    }

    /// See [`crate::Adapter::bias`].
    pub(crate) fn bias(&self) -> Option<Tensor<1>> {
        self.lora_B.bias.as_ref().map(|bias| bias.val().inner().mul_scalar(self.scale))
    }

    /// `W + scale · B·A`, `[out, in]`, off autodiff; computed in f32.
    pub fn merge(&self, weight_oi: Tensor<2>) -> Tensor<2> {
        let (a_ri, b_or) = (self.lora_A.weight.val().inner(), self.lora_B.weight.val().inner());
        weight_oi.inner() + b_or.matmul(a_ri).mul_scalar(self.scale)
    }

    /// As [`Self::merge`], with gradients to the factors.
    pub fn effective_weight(&self, weight_oi: Tensor<2>) -> Tensor<2> {
        let (a_ri, b_or) = (self.lora_A.weight.val(), self.lora_B.weight.val());
        weight_oi + b_or.matmul(a_ri).mul_scalar(self.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_all_threads_are_those_of_one_stream() {
        for n in [1, 513, 16_384, 16_385, 100_001] {
            let mut rng = Rng::new(3);
            let draw = |_| if rng.f64() < 0.1 { 0.0 } else { (1.0 / 0.9) as f32 };
            let want: Vec<f32> = (0..n).map(draw).collect();
            assert!(dropout_mask(n, 3, 0.1) == want, "{n}");
        }
    }
}
