//! Rows of a table by id.
//!
//! It deliberately checks no id on other backends: the caller compared the vocabulary with the model
//! beforehand.

mod fused;

use burn::tensor::{Int, Tensor, module};

use crate::rows::host_ids;
use crate::stored::{as_f32, weight_fits};

/// `weight_vd[ids_bt]`: `[b, t, d]`.
pub fn embedding(weight_vd: Tensor<2>, ids_bt: Tensor<2, Int>) -> Tensor<3> {
    if weight_fits(&weight_vd) {
        let [b, t] = ids_bt.dims();
        return fused::embedding(weight_vd, [b, t], host_ids(ids_bt));
    }
    as_f32(module::embedding(weight_vd, ids_bt))
}
