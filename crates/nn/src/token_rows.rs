//! Trained rows of an embedding or output layer, for a few tokens; the other rows stay frozen.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};

/// The new rows of certain tokens.
// PEFT's name; a field path is a checkpoint key.
#[derive(Module, Debug)]
pub struct TokenRows {
    /// `[n, d]`: rows that replace those of the base, in the order of the ids.
    pub trainable_tokens_delta: Param<Tensor<2>>,
    /// `[v]`: one more than the row of a token, 0 for tokens without one.
    #[module(skip)]
    row_of_v: Tensor<1, Int>,
}

impl TokenRows {
    /// New rows `[n, d]` for the tokens `ids` of a table of `n_tokens` rows.
    ///
    /// # Panics
    /// If an id is not below `n_tokens`, or there is not one row for each.
    pub fn new(rows_nd: Tensor<2>, ids: &[u32], n_tokens: usize) -> Self {
        assert_eq!(rows_nd.dims()[0], ids.len(), "one row for each id");
        let mut row_of = vec![0_i32; n_tokens];
        for (row, id) in (1..).zip(ids) {
            row_of[*id as usize] = row;
        }
        let device: Device = rows_nd.device().inner();
        let row_of_v = Tensor::from_data(TensorData::new(row_of, [n_tokens]), &device);
        Self { trainable_tokens_delta: Param::from_tensor(rows_nd), row_of_v }
    }

    /// `out` with the vectors of trained tokens replaced: `[b, t, d]`.
    pub(crate) fn replace_looked_up(
        &self,
        out_btd: Tensor<3>,
        ids_bt: Tensor<2, Int>,
    ) -> Tensor<3> {
        let [b, t] = ids_bt.dims();
        let rows_bt = self.row_of_v.clone().select(0, ids_bt.reshape([b * t])).reshape([b, t]);
        let mask_bt1 = rows_bt.clone().greater_elem(0).float().unsqueeze_dim::<3>(2);
        let kept_btd = out_btd * (mask_bt1.neg() + 1.0);
        let rows_nd = self.trainable_tokens_delta.val();
        kept_btd + kernels::embedding(with_zero_row(rows_nd), rows_bt)
    }

    /// A table with the rows of trained tokens replaced: `[v, d]`.
    pub(crate) fn replace(&self, weight_vd: Tensor<2>) -> Tensor<2> {
        self.with_rows(weight_vd, self.trainable_tokens_delta.val())
    }

    /// As [`Self::replace`], off autodiff.
    pub(crate) fn merge(&self, weight_vd: Tensor<2>) -> Tensor<2> {
        self.with_rows(weight_vd.inner(), self.trainable_tokens_delta.val().inner())
    }

    fn with_rows(&self, weight_vd: Tensor<2>, rows_nd: Tensor<2>) -> Tensor<2> {
        let [v, d] = weight_vd.dims();
        let rows_1v: Tensor<2, Int> = self.row_of_v.clone().reshape([1, v]);
        let mask_v1 = rows_1v.clone().greater_elem(0).float().reshape([v, 1]);
        let new_vd = kernels::embedding(with_zero_row(rows_nd), rows_1v).reshape([v, d]);
        weight_vd * (mask_v1.neg() + 1.0) + new_vd
    }
}

/// `[1 + n, d]`: the row of tokens that keep theirs, then the new ones.
fn with_zero_row(rows_nd: Tensor<2>) -> Tensor<2> {
    let [_, d] = rows_nd.dims();
    Tensor::cat(vec![Tensor::zeros([1, d], &rows_nd.device()), rows_nd], 0)
}
