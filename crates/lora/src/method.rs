//! Adapter methods: the tensors of each, their PEFT names and how they start. One file a method beyond LoRA.
//!
//! The mathematics of a method is a variant of [`nn::Adapter`].

use burn::tensor::{Device, Tensor, TensorData};
use nn::{Adapter, DropoutKey, LoraAdapter, LoraDropout};
use seed::{Purpose, Rng};

use crate::LoraConfig;

/// A method of adapting a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// Low-rank adaptation.
    Lora,
}

/// One tensor of a layer's adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdapterTensor {
    /// The layer's name, a dot, and PEFT's name of the tensor.
    pub(crate) name: String,
    pub(crate) shape: [usize; 2],
    pub(crate) start: Start,
}

/// Starting values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Uniform in ±1/√in: PEFT's Kaiming initialisation with a = √5.
    Uniform,
    Zeros,
}

/// A layer that gets an adapter.
#[derive(Clone, Debug)]
pub(crate) struct Slot<'a> {
    pub(crate) name: &'a str,
    pub(crate) d_in: usize,
    pub(crate) d_out: usize,
    pub(crate) device: Device,
}

impl Method {
    /// The method of a configuration.
    pub(crate) fn of(_: &LoraConfig) -> Self {
        Self::Lora
    }

    /// The tensors of a layer's adapter, in module order.
    pub(crate) fn tensors(self, slot: &Slot<'_>, config: &LoraConfig) -> Vec<AdapterTensor> {
        let Slot { name, d_in, d_out, .. } = *slot;
        let tensor = |suffix: &str, shape, start| {
            let name = format!("{name}{suffix}");
            AdapterTensor { name, shape, start }
        };
        match self {
            Self::Lora => vec![
                tensor(LORA_SUFFIXES[0], [config.rank, d_in], Start::Uniform),
                tensor(LORA_SUFFIXES[1], [d_out, config.rank], Start::Zeros),
            ],
        }
    }

    /// The adapter of a layer from the values of [`Self::tensors`], in that order.
    pub(crate) fn build(
        self,
        slot: &Slot<'_>,
        config: &LoraConfig,
        values: Vec<Vec<f32>>,
        key: &DropoutKey,
    ) -> Adapter {
        let shapes = self.tensors(slot, config).into_iter().map(|tensor| tensor.shape);
        let mut tensors = values.into_iter().zip(shapes).map(|(values, shape)| {
            Tensor::<2>::from_data(TensorData::new(values, shape), &slot.device)
        });
        let mut next = || tensors.next().unwrap_or_else(|| unreachable!("values for each tensor"));
        match self {
            Self::Lora => {
                let (lora_a_ri, lora_b_or) = (next(), next());
                let dropout = (config.dropout > 0.0)
                    .then(|| LoraDropout::new(config.dropout, slot.name.to_owned(), key.clone()));
                Adapter::Lora(LoraAdapter::new(lora_a_ri, lora_b_or, config.scale(), dropout))
            }
        }
    }
}

impl AdapterTensor {
    /// The starting values, a function of `seed` and the tensor's name.
    pub(crate) fn starting_values(&self, seed: u64) -> Vec<f32> {
        let n = self.shape.iter().product();
        match self.start {
            Start::Zeros => vec![0.0; n],
            Start::Uniform => {
                let key = seed::derive(seed, &self.name, Purpose::LoraInit, 0, 0);
                let (mut rng, bound) = (Rng::new(key), 1.0 / (self.shape[1] as f64).sqrt());
                (0..n).map(|_| ((2.0 * rng.f64() - 1.0) * bound) as f32).collect()
            }
        }
    }
}

const LORA_SUFFIXES: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];

/// Whether a parameter of this name belongs to an adapter, of any method.
pub(crate) fn is_adapter_tensor(name: &str) -> bool {
    LORA_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}
