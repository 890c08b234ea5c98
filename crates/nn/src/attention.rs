//! Between the projections of an attention block: heads split, rotated, cached, attended, joined.
//!
//! It deliberately holds no projection: families name and shape theirs differently.

use burn::tensor::Tensor;
use kernels::{AttentionMask, Heads, attention_packed};

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
    fn heads(&self) -> Heads {
        Heads { h: self.n_heads, g: self.n_kv_heads, k: self.head_dim }
    }
}

/// Attention of queries to the keys and values beside them, or, with a cache, to earlier ones too.
///
/// `qkv_btw` holds each position's queries, keys and values side by side, `w = (h + 2g) · k`; queries
/// and keys are rotated here if `rope` gives the cosines and sines of their positions, `[b, t, k / 2]`
/// each → `[b, t, h · k]`.
pub fn attend(
    layout: &HeadLayout,
    qkv_btw: Tensor<3>,
    rope: Option<(Tensor<3>, Tensor<3>)>,
    mask: &AttentionMask,
    cache: Option<(&mut LayerCache, usize)>,
) -> Tensor<3> {
    let heads = layout.heads();
    let Some((layer, end)) = cache else {
        return attention_packed(qkv_btw, heads, rope, mask, layout.scale);
    };
    let [b, t, _] = qkv_btw.dims();
    let (q_bthk, k_btgk, v_btgk) = heads.split(qkv_btw, rope);
    let (k_bsgk, v_bsgk) = layer.extend(k_btgk, v_btgk, end);
    let out_bthk = kernels::attention(q_bthk, k_bsgk, v_bsgk, mask, layout.scale);
    out_bthk.reshape([b, t, heads.h * heads.k])
}
