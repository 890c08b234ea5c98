//! Attention between the projections of a block: split into heads, normalise, rotate, cache, attend, join.
//!
//! Projections belong to the families, which name and shape them differently.

use burn::tensor::Tensor;
use kernels::{AttentionMask, Heads, attention_packed};

use crate::{LayerCache, RmsNorm};

/// Number and width of heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadLayout {
    /// Query heads.
    pub n_heads: usize,
    /// Key-value heads; each serves `n_heads / n_kv_heads` query heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor of the scores.
    pub scale: f64,
}

/// Steps between projections and scores that some families have and others lack.
#[derive(Clone, Debug, Default)]
pub struct HeadTransforms<'a> {
    /// Norms of queries and keys, before the rotation.
    pub norms: Option<(&'a RmsNorm, &'a RmsNorm)>,
    /// Cosines and sines of the positions, `[b, t, c]` each: the first `2c` elements of each query head and each key head
    /// are rotated.
    pub rope: Option<(Tensor<3>, Tensor<3>)>,
}

impl HeadLayout {
    fn heads(&self) -> Heads {
        Heads { h: self.n_heads, g: self.n_kv_heads, k: self.head_dim }
    }
}

/// Self-attention, with a cache over earlier keys and values too.
///
/// `qkv_btw` has each position's queries, keys and values side by side, `w = (h + 2g) · k`
/// → `[b, t, h · k]`. With a cache, give its layer and the number of tokens in it.
pub fn attend(
    layout: &HeadLayout,
    qkv_btw: Tensor<3>,
    transforms: HeadTransforms<'_>,
    mask: &AttentionMask,
    cache: Option<(&mut LayerCache, usize)>,
) -> Tensor<3> {
    let heads = layout.heads();
    let [b, t, _] = qkv_btw.dims();
    let HeadTransforms { norms, rope } = transforms;
    // The fused kernels rotate whole heads.
    let (whole, partial) = match rope {
        Some((cos_btc, sin_btc)) if 2 * cos_btc.dims()[2] < heads.k => {
            (None, Some((cos_btc, sin_btc)))
        }
        rope => (rope, None),
    };
    if norms.is_none() && partial.is_none() && cache.is_none() {
        return attention_packed(qkv_btw, heads, whole, mask, layout.scale);
    }
    let (q_bthk, k_btgk, v_btgk) = match norms {
        None => heads.split(qkv_btw, whole),
        Some((q_norm, k_norm)) => {
            let (q_bthk, k_btgk, v_btgk) = heads.split(qkv_btw, None);
            let (q_bthk, k_btgk) = (q_norm.forward_heads(q_bthk), k_norm.forward_heads(k_btgk));
            match whole {
                None => (q_bthk, k_btgk, v_btgk),
                Some((cos_btc, sin_btc)) => (
                    kernels::rope(q_bthk, cos_btc.clone(), sin_btc.clone()),
                    kernels::rope(k_btgk, cos_btc, sin_btc),
                    v_btgk,
                ),
            }
        }
    };
    let (q_bthk, k_btgk) = match partial {
        None => (q_bthk, k_btgk),
        Some((cos_btc, sin_btc)) => (
            rotate_first(q_bthk, cos_btc.clone(), sin_btc.clone()),
            rotate_first(k_btgk, cos_btc, sin_btc),
        ),
    };
    let (k_bsgk, v_bsgk) = match cache {
        None => (k_btgk, v_btgk),
        Some((layer, end)) => layer.extend(k_btgk, v_btgk, end),
    };
    let out_bthk = kernels::attention(q_bthk, k_bsgk, v_bsgk, mask, layout.scale);
    out_bthk.reshape([b, t, heads.h * heads.k])
}

/// Rotates the first elements of each head, twice as many as there are angles.
fn rotate_first(x_bthk: Tensor<4>, cos_btc: Tensor<3>, sin_btc: Tensor<3>) -> Tensor<4> {
    let [b, t, h, k] = x_bthk.dims();
    let width = 2 * cos_btc.dims()[2];
    let part = |range: std::ops::Range<usize>| x_bthk.clone().slice([0..b, 0..t, 0..h, range]);
    Tensor::cat(vec![kernels::rope(part(0..width), cos_btc, sin_btc), part(width..k)], 3)
}

/// Cross-attention: queries `[b, t, h · k]` attend to keys and values of another sequence, side by side in
/// `kv_bsw`, `w = 2g · k` → `[b, t, h · k]`.
pub fn cross_attend(
    layout: &HeadLayout,
    q_btw: Tensor<3>,
    kv_bsw: Tensor<3>,
    mask: &AttentionMask,
) -> Tensor<3> {
    let Heads { h, g, k } = layout.heads();
    let ([b, t, _], [_, s, _]) = (q_btw.dims(), kv_bsw.dims());
    let part = |start: usize| {
        kv_bsw.clone().slice([0..b, 0..s, start..start + g * k]).reshape([b, s, g, k])
    };
    let q_bthk = q_btw.reshape([b, t, h, k]);
    let out_bthk = kernels::attention(q_bthk, part(0), part(g * k), mask, layout.scale);
    out_bthk.reshape([b, t, h * k])
}
