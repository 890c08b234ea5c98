//! Low-rank adapters beside frozen weights: `x·Wᵀ + scale · (x·Aᵀ)·Bᵀ` (Hu et al. 2021, section 4.1).
//!
//! A dense update never exists in training. Which layers get an adapter, and from which values, is
//! deliberately decided elsewhere.
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
}

/// The two factors of a layer's update, and how strongly it counts.
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

/// Dropout of what an adapter reads, with masks that follow from a key and the layer's name.
#[derive(Clone, Debug)]
pub struct LoraDropout {
    probability: f64,
    layer: String,
    key: DropoutKey,
    /// Whether it acts although no factor is being trained.
    always: bool,
}

/// The key of the masks of the forward at hand, shared by all adapters of a model.
///
/// A stage sets it before each tracked forward, so that masks are a function of the run's seed, the
/// step and the micro-batch, and a resumed run draws the same ones.
#[derive(Clone, Debug, Default)]
pub struct DropoutKey(Arc<AtomicU64>);

impl DropoutKey {
    /// The key of the forwards that follow.
    pub fn set(&self, key: u64) {
        // 0 says that no key was set yet.
        self.0.store(key.max(1), Ordering::Relaxed);
    }

    fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|key| *key != 0)
    }
}

impl LoraDropout {
    /// Each value is dropped with the given probability, in `0..1`; `layer` is the layer's name.
    pub fn new(probability: f64, layer: String, key: DropoutKey) -> Self {
        Self { probability, layer, key, always: false }
    }

    /// `x` with dropped values at 0 and the others scaled up, so that the mean stays.
    fn apply<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let Some(key) = self.key.get() else {
            panic!("adapters with dropout need the key of each tracked forward: `{}`", self.layer)
        };
        let shape = x.dims();
        let mut rng = Rng::new(seed::derive(key, &self.layer, Purpose::Dropout, 0, 0));
        let kept = (1.0 / (1.0 - self.probability)) as f32;
        let mut draw = || if rng.f64() < self.probability { 0.0 } else { kept };
        let mask: Vec<f32> = (0..shape.iter().product::<usize>()).map(|_| draw()).collect();
        let mask = Tensor::<D>::from_data(TensorData::new(mask, shape), &x.device());
        x * mask
    }
}

impl LoraAdapter {
    /// An adapter of given factors, `[r, in]` and `[out, r]`.
    ///
    /// # Panics
    /// If the factors don't share their rank.
    pub fn new(
        lora_a_ri: Tensor<2>,
        lora_b_or: Tensor<2>,
        scale: f64,
        dropout: Option<LoraDropout>,
    ) -> Self {
        assert_eq!(lora_a_ri.dims()[0], lora_b_or.dims()[1], "the rank of both factors");
        let factor = |weight| LoraFactor { weight: Param::from_tensor(weight) };
        Self { lora_A: factor(lora_a_ri), lora_B: factor(lora_b_or), scale, dropout }
    }

    /// The same adapter, which drops nothing.
    #[must_use]
    pub fn without_dropout(self) -> Self {
        Self { dropout: None, ..self }
    }

    /// The same adapter with the masks of the key at hand, whatever is set later and whether or not its factors are
    /// being trained: a forward that is computed again draws what it drew.
    #[must_use]
    pub fn with_masks_at_hand(self) -> Self {
        let dropout = self.dropout.map(|dropout| {
            let key = DropoutKey(Arc::new(AtomicU64::new(dropout.key.0.load(Ordering::Relaxed))));
            LoraDropout { key, always: true, ..dropout }
        });
        Self { dropout, ..self }
    }

    /// The dropout, where it acts: in training.
    fn active_dropout(&self) -> Option<&LoraDropout> {
        let is_trained = self.lora_A.weight.is_require_grad();
        self.dropout.as_ref().filter(|dropout| dropout.always || is_trained)
    }

    /// The width between the factors.
    pub fn rank(&self) -> usize {
        self.lora_A.weight.dims()[0]
    }

    /// What the product of the factors is multiplied by.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// `y` and what the adapter makes of `x`: `[.., in]` → `[.., out]`.
    ///
    /// Dropout acts only where the factors are being trained.
    pub fn add_to<const D: usize>(&self, y: Tensor<D>, x: Tensor<D>) -> Tensor<D> {
        let (a_ri, b_or) = (self.lora_A.weight.val(), self.lora_B.weight.val());
        let x = match self.active_dropout() {
            Some(dropout) => dropout.apply(x),
            None => x,
        };
        kernels::add_lora(y, x, a_ri, b_or, self.scale)
    }

    /// The factors for a fused product; none while dropout acts on what the adapter reads.
    pub(crate) fn fused(&self) -> Option<kernels::Adapter> {
        if self.active_dropout().is_some() {
            return None;
        }
        let a_ri = self.lora_A.weight.val();
        Some(kernels::Adapter { a_ri, b_or: self.lora_B.weight.val(), scale: self.scale })
    }

    /// The update as one matrix, `scale · B·A`, `[out, in]`, off autodiff.
    pub fn delta_oi(&self) -> Tensor<2> {
        let (a_ri, b_or) = (self.lora_A.weight.val().inner(), self.lora_B.weight.val().inner());
        b_or.matmul(a_ri).mul_scalar(self.scale)
    }
}

/// A layer that an adapter can stand beside.
pub trait Projection {
    /// `(in, out)`
    fn widths(&self) -> (usize, usize);

    /// The weight as it is stored.
    fn weight(&self) -> Tensor<2>;

    /// The adapter in its slot.
    fn adapter(&self) -> Option<&LoraAdapter>;

    /// Puts an adapter into the slot, or none, and gives back what was there.
    fn set_adapter(&mut self, adapter: Option<LoraAdapter>) -> Option<LoraAdapter>;

    /// Adds a matrix `[out, in]` to the weight, whatever its layout.
    fn add_to_weight(&mut self, delta_oi: Tensor<2>);

    /// `[b, t, in]` → `[b, t, out]`.
    fn apply(&self, x_bti: Tensor<3>) -> Tensor<3>;

    /// The layer for [`fused_linear`]; none while its adapter's dropout is active.
    fn map(&self) -> Option<kernels::LinearMap>;
}

/// Pins the masks of the layers' adapters; see [`LoraAdapter::with_masks_at_hand`].
pub fn pin_masks<'a>(layers: impl IntoIterator<Item = &'a mut dyn Projection>) {
    for layer in layers {
        if let Some(adapter) = layer.set_adapter(None) {
            layer.set_adapter(Some(adapter.with_masks_at_hand()));
        }
    }
}

/// What `layers` make of one input, side by side, added to `residual`; fused where nothing drops out.
pub fn fused_linear(
    read: kernels::LinearInput,
    layers: &[&dyn Projection],
    residual_bto: Option<Tensor<3>>,
) -> Tensor<3> {
    let maps: Option<Vec<_>> = layers.iter().map(|layer| layer.map()).collect();
    if let Some(maps) = maps {
        return kernels::fused_linear(read, &maps, residual_bto);
    }
    let x_bti = read.tensor();
    let outs = layers.iter().map(|layer| layer.apply(x_bti.clone())).collect();
    let out_bto = Tensor::cat(outs, 2);
    match residual_bto {
        Some(residual_bto) => out_bto + residual_bto,
        None => out_bto,
    }
}
