//! Rows of a table by id.
//!
//! It deliberately checks no id: the caller compared the vocabulary with the model beforehand.

use burn::tensor::{Int, Tensor, module};

/// `weight_vd[ids_bt]`: `[b, t, d]`.
pub fn embedding(weight_vd: Tensor<2>, ids_bt: Tensor<2, Int>) -> Tensor<3> {
    module::embedding(weight_vd, ids_bt)
}
