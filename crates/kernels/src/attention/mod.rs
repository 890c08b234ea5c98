//! Scaled dot-product attention with grouped key-value heads, and the one type that says who sees whom.
//!
//! There is deliberately no way to attend without a mask: borders of packed samples travel in the
//! same type as causality, so no path can forget them.

mod softmax;

use std::sync::{Arc, OnceLock};

use burn::tensor::{Int, Tensor};

use self::softmax::masked_softmax;

/// Added to scores that must not be seen. Finite, so that a row that sees nothing stays finite.
const HIDDEN: f32 = -1e30;

/// Who sees whom: key `s` is visible to query `t` iff both carry the same segment, `s` is not later
/// than `t + (S - T)`, and, with a window of `w`, at most `w - 1` positions earlier.
///
/// The additive form is built at the first use and kept, so all layers of a model share one.
#[derive(Clone, Debug)]
pub struct AttentionMask {
    q_segments_bt: Tensor<2, Int>,
    k_segments_bs: Tensor<2, Int>,
    window: Option<usize>,
    additive_b1ts: Arc<OnceLock<Tensor<4>>>,
}

impl AttentionMask {
    /// A mask over keys `0..S` and the queries that are their last `T` positions.
    pub fn new(
        q_segments_bt: Tensor<2, Int>,
        k_segments_bs: Tensor<2, Int>,
        window: Option<usize>,
    ) -> Self {
        // A mask is a constant: off the autodiff device, where operations on it would be recorded.
        Self {
            q_segments_bt: q_segments_bt.inner(),
            k_segments_bs: k_segments_bs.inner(),
            window,
            additive_b1ts: Arc::default(),
        }
    }

    /// 0 where a key is visible, a very large negative number where it is not: `[b, 1, t, s]`.
    pub fn additive(&self) -> Tensor<4> {
        self.additive_b1ts.get_or_init(|| self.build()).clone()
    }

    fn build(&self) -> Tensor<4> {
        let [b, t] = self.q_segments_bt.dims();
        let [_, s] = self.k_segments_bs.dims();
        let past = s - t;
        let mut causal = vec![HIDDEN; t * s];
        for (query, row) in causal.chunks_mut(s).enumerate() {
            let last = query + past;
            let first = self.window.map_or(0, |window| (last + 1).saturating_sub(window));
            row[first..=last].fill(0.0);
        }
        let device = self.q_segments_bt.device();
        let causal_ts = Tensor::<1>::from_data(causal.as_slice(), &device).reshape([1, t, s]);
        let q_bt1 = self.q_segments_bt.clone().reshape([b, t, 1]).expand([b, t, s]);
        let k_b1s = self.k_segments_bs.clone().reshape([b, 1, s]).expand([b, t, s]);
        let foreign_bts = q_bt1.not_equal(k_b1s);
        causal_ts.expand([b, t, s]).mask_fill(foreign_bts, HIDDEN).reshape([b, 1, t, s])
    }
}

/// `softmax(q·kᵀ · scale + mask) · v`, each group of `h / g` query heads sharing one key-value head.
///
/// q `[b, t, h, k]`, k and v `[b, s, g, k]` (views are fine) → `[b, t, h, k]`.
pub fn attention(
    q_bthk: Tensor<4>,
    k_bsgk: Tensor<4>,
    v_bsgk: Tensor<4>,
    mask: &AttentionMask,
    scale: f64,
) -> Tensor<4> {
    let [b, t, h, k] = q_bthk.dims();
    let [_, s, g, _] = k_bsgk.dims();
    // The query heads of a group are stacked along time, so one product serves the whole group.
    let rows = h / g * t;
    let q_bgrk = q_bthk.swap_dims(1, 2).reshape([b, g, rows, k]);
    let scores_bgrs = q_bgrk.matmul(k_bsgk.permute([0, 2, 3, 1]));
    let scores_bhts = scores_bgrs.reshape([b, h, t, s]);
    let probs_bhts = masked_softmax(scores_bhts, mask.additive(), scale);
    let probs_bgrs = probs_bhts.reshape([b, g, rows, s]);
    let out_bgrk = probs_bgrs.matmul(v_bsgk.swap_dims(1, 2));
    out_bgrk.reshape([b, h, t, k]).swap_dims(1, 2)
}

/// How many heads stand side by side, and how wide each is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub h: usize,
    /// Key-value heads; each serves `h / g` query heads.
    pub g: usize,
    /// Width of a head.
    pub k: usize,
}

impl Heads {
    /// Queries `[b, t, h, k]`, keys and values `[b, t, g, k]` of `[b, t, (h + 2g) · k]`; queries and
    /// keys rotated if `rope` gives cosines and sines.
    pub fn split(
        self,
        qkv_btw: Tensor<3>,
        rope: Option<(Tensor<3>, Tensor<3>)>,
    ) -> (Tensor<4>, Tensor<4>, Tensor<4>) {
        let Self { h, g, k } = self;
        let [b, t, _] = qkv_btw.dims();
        let part = |start: usize, n: usize| {
            let part_btw = qkv_btw.clone().slice([0..b, 0..t, start * k..(start + n) * k]);
            part_btw.reshape([b, t, n, k])
        };
        let (q_bthk, k_btgk, v_btgk) = (part(0, h), part(h, g), part(h + g, g));
        let Some((cos_btc, sin_btc)) = rope else { return (q_bthk, k_btgk, v_btgk) };
        let rotated = |x| crate::rope(x, cos_btc.clone(), sin_btc.clone());
        (rotated(q_bthk), rotated(k_btgk), v_btgk)
    }
}

/// [`attention`] of queries, keys and values that stand side by side, rotated first if `rope` gives
/// cosines and sines `[b, t, k / 2]`: `[b, t, (h + 2g) · k]` → `[b, t, h · k]`.
pub fn attention_packed(
    qkv_btw: Tensor<3>,
    heads: Heads,
    rope: Option<(Tensor<3>, Tensor<3>)>,
    mask: &AttentionMask,
    scale: f64,
) -> Tensor<3> {
    let [b, t, _] = qkv_btw.dims();
    let (q_bthk, k_btgk, v_btgk) = heads.split(qkv_btw, rope);
    attention(q_bthk, k_btgk, v_btgk, mask, scale).reshape([b, t, heads.h * heads.k])
}
