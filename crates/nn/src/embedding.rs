//! A table of vectors, read by id: tokens, or GPT-2's positions.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

/// A table `[v, d]`.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[v, d]`
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    /// A table of given values.
    pub fn new(weight_vd: Tensor<2>) -> Self {
        Self { weight: Param::from_tensor(weight_vd) }
    }

    /// The rows of `ids`: `[b, t, d]`.
    pub fn forward(&self, ids_bt: Tensor<2, Int>) -> Tensor<3> {
        kernels::embedding(self.weight.val(), ids_bt)
    }
}
