//! Rotary position embedding (Su et al. 2021) in the half-split layout of Hugging Face.
//!
//! It deliberately computes no angles: the tables come from arch, gathered per position by nn.

use burn::tensor::Tensor;

/// Rotates each head's pairs `(x[j], x[j + k/2])` by its position's angle `j`.
///
/// `cos_btc` and `sin_btc` hold one value a pair, `c = k / 2`; a model's attention factor is
/// already multiplied in.
pub fn rope(x_bthk: Tensor<4>, cos_btc: Tensor<3>, sin_btc: Tensor<3>) -> Tensor<4> {
    let [b, t, h, k] = x_bthk.dims();
    let half = k / 2;
    let first = x_bthk.clone().slice([0..b, 0..t, 0..h, 0..half]);
    let second = x_bthk.slice([0..b, 0..t, 0..h, half..k]);
    let cos = cos_btc.unsqueeze_dim::<4>(2);
    let sin = sin_btc.unsqueeze_dim::<4>(2);
    let rotated_first = first.clone() * cos.clone() - second.clone() * sin.clone();
    let rotated_second = second * cos + first * sin;
    Tensor::cat(vec![rotated_first, rotated_second], 3)
}
