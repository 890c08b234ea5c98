//! Between the projections of an attention block: heads split, rotated, cached, attended, joined.
//!
//! It deliberately holds no projection: families name and shape theirs differently.

use burn::tensor::Tensor;
use kernels::AttentionMask;

use crate::LayerCache;

/// How a projection's width is divided into heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadLayout {
    /// Query heads.
    pub n_heads: usize,
    /// Key-value heads; each serves `n_heads / n_kv_heads` query heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Multiplies the scores.
    pub scale: f64,
}

impl HeadLayout {
    /// `[b, t, n · k]` → `[b, t, n, k]`.
    pub fn split(&self, x_btd: Tensor<3>, n_heads: usize) -> Tensor<4> {
        let [b, t, _] = x_btd.dims();
        x_btd.reshape([b, t, n_heads, self.head_dim])
    }
}

/// Attention of queries to the keys and values beside them, or, with a cache, to earlier ones too.
///
/// q `[b, t, h, k]`, k and v `[b, t, g, k]`, rotated already → `[b, t, h · k]`.
pub fn attend(
    layout: &HeadLayout,
    q_bthk: Tensor<4>,
    k_btgk: Tensor<4>,
    v_btgk: Tensor<4>,
    mask: &AttentionMask,
    cache: Option<(&mut LayerCache, usize)>,
) -> Tensor<3> {
    let [b, t, h, k] = q_bthk.dims();
    let (k_bsgk, v_bsgk) = match cache {
        Some((layer, end)) => layer.extend(k_btgk, v_btgk, end),
        None => (k_btgk, v_btgk),
    };
    kernels::attention(q_bthk, k_bsgk, v_bsgk, mask, layout.scale).reshape([b, t, h * k])
}
