//! Building the adapter of one layer, from a file or with starting values.
//!
//! Under PiSSA and OLoRA the factors start as a part of the weight, which is taken out of the base weight. A file has the
//! factors alone, so reading one repeats the decomposition of the base weight, as PEFT does.

use arch::{AdaptedLayer, AdapterLayout, AdapterTensor, AdapterTensorKind, LoraInit, TokenRows};
use burn::tensor::{DType, Device, Tensor, TensorData};
use kernels::WeightLayout;
use nn::{
    Adapter, DoraAdapter, DropoutKey, Embedding, EmbeddingAdapter, LoraAdapter, LoraDropout,
    LoraEmbedding, Projection, Weight, row_norms,
};
use seed::{Purpose, Rng};

use crate::decompose::{Factors, olora, pissa};
use crate::{Error, LoraConfig, Result};

/// A source of the values of an adapter's tensors: a file, or [`StartingValues`].
pub(crate) trait Source {
    /// The values of a tensor; `start` gives the starting values of a new one from the seed.
    fn values(
        &mut self,
        tensor: &AdapterTensor,
        start: &mut dyn FnMut(u64) -> Vec<f32>,
    ) -> Result<Vec<f32>>;
}

/// Starting values of new tensors.
pub(crate) struct StartingValues {
    pub(crate) seed: u64,
}

impl Source for StartingValues {
    fn values(
        &mut self,
        _: &AdapterTensor,
        start: &mut dyn FnMut(u64) -> Vec<f32>,
    ) -> Result<Vec<f32>> {
        Ok(start(self.seed))
    }
}

/// The adapter of a linear layer. Under PiSSA and OLoRA the layer's weight changes.
pub(crate) fn build_linear(
    slot: &mut dyn Projection,
    layer: &AdaptedLayer,
    config: &LoraConfig,
    layout: &AdapterLayout,
    source: &mut dyn Source,
    key: &DropoutKey,
) -> Result<Adapter> {
    let mut taken = take_out(slot, layer, config.init)?;
    let device = slot.base().weight.device();
    let (mut a, mut b, mut bias, mut magnitude) = (None, None, None, None);
    for tensor in layout.tensors_of(layer) {
        let kind = tensor.kind;
        match kind {
            AdapterTensorKind::A => {
                let mut factor = taken.as_mut().map(|taken| std::mem::take(&mut taken.a));
                let mut start = |seed| factor.take().unwrap_or_else(|| uniform(&tensor, seed));
                a = Some(matrix(source.values(&tensor, &mut start)?, &tensor, &device));
            }
            AdapterTensorKind::B => {
                let mut factor = taken.as_mut().map(|taken| std::mem::take(&mut taken.b));
                let mut start = |_| factor.take().unwrap_or_else(|| zeros(&tensor));
                b = Some(matrix(source.values(&tensor, &mut start)?, &tensor, &device));
            }
            AdapterTensorKind::BiasOfB => {
                bias = Some(vector(source.values(&tensor, &mut |_| zeros(&tensor))?, &device));
            }
            AdapterTensorKind::Magnitude => magnitude = Some(tensor),
            AdapterTensorKind::EmbeddingA
            | AdapterTensorKind::EmbeddingB
            | AdapterTensorKind::Rows => unreachable!("not of a linear layer"),
        }
    }
    let (Some(a), Some(b)) = (a, b) else { unreachable!("both factors are in the list") };
    let dropout = (config.dropout > 0.0)
        .then(|| LoraDropout::new(config.dropout, layer.name.clone(), key.clone()));
    let lora = LoraAdapter::new(a, b, layer.scale, dropout);
    let lora = match bias {
        Some(bias_o) => lora.with_bias(bias_o),
        None => lora,
    };
    let Some(tensor) = magnitude else { return Ok(Adapter::Lora(lora)) };
    let mut norms = |_| {
        let weight_oi = slot.base().weight_f32_oi().inner();
        host(row_norms(lora.merge(weight_oi)))
    };
    let magnitude_o = vector(source.values(&tensor, &mut norms)?, &device);
    Ok(Adapter::Dora(DoraAdapter::new(lora, magnitude_o)))
}

/// The adapter of the token embedding. As in PEFT, A starts as zero and B normal.
pub(crate) fn build_embedding(
    embedding: &Embedding,
    layer: &AdaptedLayer,
    layout: &AdapterLayout,
    source: &mut dyn Source,
) -> Result<EmbeddingAdapter> {
    let weight_vd = embedding.weight.val();
    let device = weight_vd.device();
    let (mut factors, mut magnitude_d) = (Vec::new(), None);
    for tensor in layout.tensors_of(layer) {
        if tensor.kind == AdapterTensorKind::Magnitude {
            // A is zero at the start, so these are the norms of the table's columns.
            let mut norms = |_| host(row_norms(in_f32(weight_vd.clone()).inner().transpose()));
            magnitude_d = Some(vector(source.values(&tensor, &mut norms)?, &device));
            continue;
        }
        let is_a = tensor.kind == AdapterTensorKind::EmbeddingA;
        let mut start = |seed| if is_a { zeros(&tensor) } else { normal(&tensor, seed) };
        factors.push(matrix(source.values(&tensor, &mut start)?, &tensor, &device));
    }
    let mut factors = factors.into_iter();
    let (Some(a_rv), Some(b_dr)) = (factors.next(), factors.next()) else {
        unreachable!("both factors are in the list")
    };
    Ok(EmbeddingAdapter::Lora(LoraEmbedding::new(a_rv, b_dr, magnitude_d, layer.scale)))
}

/// Trained rows of the table `[v, d]`; they start as its own.
pub(crate) fn build_rows(
    weight_vd: Tensor<2>,
    rows: &TokenRows,
    layout: &AdapterLayout,
    source: &mut dyn Source,
) -> Result<nn::TokenRows> {
    let (tensor, device) = (layout.tensor_of_rows(rows), weight_vd.device());
    let mut of_table = |_| {
        let values = host(in_f32(weight_vd.clone()).inner());
        let row = |id: &u32| {
            let start = *id as usize * rows.width;
            values.get(start..start + rows.width).unwrap_or_default().to_vec()
        };
        rows.ids.iter().flat_map(row).collect()
    };
    let values = source.values(&tensor, &mut of_table)?;
    Ok(nn::TokenRows::new(matrix(values, &tensor, &device), &rows.ids, rows.n_tokens))
}

/// Decomposes a layer's weight and takes the factors' product out of it; `None` if nothing is taken out.
fn take_out(
    slot: &mut dyn Projection,
    layer: &AdaptedLayer,
    init: LoraInit,
) -> Result<Option<Factors>> {
    let decompose = match init {
        LoraInit::Default => return Ok(None),
        LoraInit::Pissa => pissa,
        LoraInit::Olora => olora,
    };
    if let Weight::Blocks(_) = slot.base().weight {
        slot.weight_mut().dequantise();
    }
    if slot.base().weight.dense().is_none_or(|weight| weight.dtype() != DType::F32) {
        return Err(Error::NotInF32 { layer: layer.name.clone() });
    }
    let layout = slot.base().layout;
    let weight_oi = host(slot.base().weight_oi().inner());
    let mut factors = decompose(&weight_oi, [layer.d_out, layer.d_in], layer.rank, layer.scale);
    let residual = std::mem::take(&mut factors.residual);
    slot.weight_mut().update(|old| {
        let residual_oi: Tensor<2> =
            Tensor::from_data(TensorData::new(residual, [layer.d_out, layer.d_in]), &old.device());
        match layout {
            WeightLayout::OutIn => residual_oi,
            WeightLayout::InOut => {
                let data = residual_oi.transpose().into_data();
                Tensor::from_data(data, &old.device())
            }
        }
    });
    Ok(Some(factors))
}

fn matrix(values: Vec<f32>, tensor: &AdapterTensor, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, tensor.shape.clone()), device)
}

fn vector(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    kernels::with_host_values(&x, <[f32]>::to_vec)
}

fn in_f32(weight: Tensor<2>) -> Tensor<2> {
    if weight.dtype() == DType::F32 { weight } else { weight.cast(DType::F32) }
}

fn zeros(tensor: &AdapterTensor) -> Vec<f32> {
    vec![0.0; tensor.shape.iter().product()]
}

/// Uniform in ±1/√in: PEFT's Kaiming initialisation with a = √5.
fn uniform(tensor: &AdapterTensor, seed: u64) -> Vec<f32> {
    let mut rng = rng_of(tensor, seed);
    let d_in = tensor.shape.last().copied().unwrap_or(1);
    let bound = 1.0 / (d_in as f64).sqrt();
    let n = tensor.shape.iter().product();
    (0..n).map(|_| ((2.0 * rng.f64() - 1.0) * bound) as f32).collect()
}

fn normal(tensor: &AdapterTensor, seed: u64) -> Vec<f32> {
    let mut values = zeros(tensor);
    rng_of(tensor, seed).fill_normal(&mut values, 1.0);
    values
}

fn rng_of(tensor: &AdapterTensor, seed: u64) -> Rng {
    Rng::new(seed::derive(seed, &tensor.name, Purpose::LoraInit, 0, 0))
}
