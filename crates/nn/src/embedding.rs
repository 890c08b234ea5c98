//! A table of vectors, read by id: tokens, or GPT-2's positions. It has a slot for an adapter.
// PEFT's names; a field path is a checkpoint key.
#![allow(non_snake_case)]

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

use kernels::WeightTensor;

use crate::weight::{row_norms, widened};
use crate::{TokenRows, Weight};

/// A table `[v, d]`.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[v, d]`
    pub weight: Weight,
    /// Changes the output.
    pub adapter: Option<EmbeddingAdapter>,
}

/// The adapter of an embedding.
#[derive(Module, Debug)]
pub enum EmbeddingAdapter {
    /// Low-rank factors, with trained magnitudes under DoRA.
    Lora(LoraEmbedding),
    /// Trained rows.
    Tokens(TokenRows),
}

/// Low-rank factors of a table's update, `scale · (B·A)ᵀ`.
#[derive(Module, Debug)]
pub struct LoraEmbedding {
    /// `[r, v]`
    pub lora_embedding_A: Param<Tensor<2>>,
    /// `[d, r]`
    pub lora_embedding_B: Param<Tensor<2>>,
    /// `[d]`: the magnitude of each column of the table, under DoRA.
    pub lora_magnitude_vector: Option<Param<Tensor<1>>>,
    #[module(skip)]
    scale: f64,
}

impl Embedding {
    /// A table of given values.
    pub fn new(weight_vd: Tensor<2>) -> Self {
        Self::of_weight(Weight::new(weight_vd))
    }

    /// A table of a given weight `[v, d]`.
    pub fn of_weight(weight: Weight) -> Self {
        Self { weight, adapter: None }
    }

    /// The rows of `ids`: `[b, t, d]`.
    pub fn forward(&self, ids_bt: Tensor<2, Int>) -> Tensor<3> {
        let out_btd = kernels::embedding(self.read_weight(), ids_bt.clone());
        match &self.adapter {
            None => out_btd,
            Some(EmbeddingAdapter::Lora(lora)) => lora.forward(&self.weight, ids_bt, out_btd),
            Some(EmbeddingAdapter::Tokens(rows)) => rows.replace_looked_up(out_btd, ids_bt),
        }
    }

    /// The table as the weight of an output layer that shares it, `[v, d]`: with the trained rows of tokens.
    ///
    /// Factors are not applied: they adapt the input side alone, and a model that has some has an output layer of its own.
    pub fn output_weight(&self) -> WeightTensor {
        match &self.adapter {
            Some(EmbeddingAdapter::Tokens(rows)) => rows.replace(widened(self.weight.val())).into(),
            Some(EmbeddingAdapter::Lora(_)) | None => self.read_weight(),
        }
    }

    fn read_weight(&self) -> WeightTensor {
        self.weight.in_place().unwrap_or_else(|| self.weight.val().into())
    }

    /// Merges the adapter into the table and returns it; the slot is empty then.
    pub fn merge_adapter(&mut self) -> Option<EmbeddingAdapter> {
        let adapter = self.adapter.take()?;
        self.weight.update(|weight_vd| match &adapter {
            EmbeddingAdapter::Lora(lora) => lora.merge(widened(weight_vd)),
            EmbeddingAdapter::Tokens(rows) => rows.merge(widened(weight_vd)),
        });
        Some(adapter)
    }
}

impl LoraEmbedding {
    /// Factors `[r, v]` and `[d, r]`, and magnitudes `[d]` under DoRA.
    ///
    /// # Panics
    /// If the factors have different ranks.
    pub fn new(
        a_rv: Tensor<2>,
        b_dr: Tensor<2>,
        magnitude_d: Option<Tensor<1>>,
        scale: f64,
    ) -> Self {
        assert_eq!(a_rv.dims()[0], b_dr.dims()[1], "the rank of both factors");
        Self {
            lora_embedding_A: Param::from_tensor(a_rv),
            lora_embedding_B: Param::from_tensor(b_dr),
            lora_magnitude_vector: magnitude_d.map(Param::from_tensor),
            scale,
        }
    }

    fn forward(&self, weight: &Weight, ids_bt: Tensor<2, Int>, out_btd: Tensor<3>) -> Tensor<3> {
        let narrow_btr = kernels::embedding(self.lora_embedding_A.val().transpose(), ids_bt);
        let b_dr = self.lora_embedding_B.val();
        let change_btd = kernels::linear(narrow_btr.mul_scalar(self.scale), b_dr, None);
        let Some(magnitude) = &self.lora_magnitude_vector else { return out_btd + change_btd };
        // The norms are constants in the backward pass.
        let norms_d = row_norms(self.updated(widened(weight.val())).transpose());
        (out_btd + change_btd) * (magnitude.val() / norms_d).unsqueeze()
    }

    /// The table that gives the adapted embedding's output, `[v, d]`, off autodiff.
    fn merge(&self, weight_vd: Tensor<2>) -> Tensor<2> {
        let adapted_vd = self.updated(weight_vd);
        let Some(magnitude) = &self.lora_magnitude_vector else { return adapted_vd };
        let norms_d = row_norms(adapted_vd.clone().transpose());
        adapted_vd * (magnitude.val().inner() / norms_d).unsqueeze()
    }

    /// `W + scale · (B·A)ᵀ`, `[v, d]`, off autodiff.
    fn updated(&self, weight_vd: Tensor<2>) -> Tensor<2> {
        let a_rv = self.lora_embedding_A.val().inner();
        let b_dr = self.lora_embedding_B.val().inner();
        weight_vd.inner() + kernels::linear(a_rv.transpose(), b_dr, None).mul_scalar(self.scale)
    }
}
