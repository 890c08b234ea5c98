//! Who sees whom, in the one type that all attention reads.
//!
//! There is deliberately no way to attend without a mask: borders of packed samples travel in the
//! same type as causality, so no path can forget them.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Int, Tensor};
use kernels_cpu::VisibleKeys;

/// Added to scores that must not be seen. Finite, so that a row that sees nothing stays finite.
pub(super) const HIDDEN: f32 = -1e30;

/// Who sees whom: key `s` is visible to query `t` iff both carry the same segment, `s` is not later
/// than `t + (S - T)`, and, with a window of `w`, at most `w - 1` positions earlier.
///
/// What is derived from it is built at the first use and kept, so all layers of a model share one.
#[derive(Clone, Debug)]
pub struct AttentionMask {
    q_segments_bt: Tensor<2, Int>,
    k_segments_bs: Tensor<2, Int>,
    window: Option<usize>,
    additive_b1ts: Arc<OnceLock<Tensor<4>>>,
    visible: Arc<OnceLock<Arc<VisibleKeys>>>,
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
            visible: Arc::default(),
        }
    }

    /// The causal mask over keys `0..S` and the queries that are their last `T` positions.
    pub fn causal(q_segments_bt: Tensor<2, Int>, k_segments_bs: Tensor<2, Int>) -> Self {
        Self::new(q_segments_bt, k_segments_bs, None)
    }

    /// The same mask with a window.
    #[must_use]
    pub fn with_window(self, window: Option<usize>) -> Self {
        Self { window, additive_b1ts: Arc::default(), visible: Arc::default(), ..self }
    }

    /// 0 where a key is visible, a very large negative number where it is not: `[b, 1, t, s]`.
    pub fn additive(&self) -> Tensor<4> {
        self.additive_b1ts.get_or_init(|| self.build()).clone()
    }

    /// The keys that each query attends to, on the host.
    pub(super) fn visible(&self) -> Arc<VisibleKeys> {
        let visible = self.visible.get_or_init(|| {
            let [_, t] = self.q_segments_bt.dims();
            let [_, s] = self.k_segments_bs.dims();
            let host = |x: &Tensor<2, Int>| -> Vec<i32> {
                x.clone().into_data().convert::<i32>().iter::<i32>().collect()
            };
            let (q, k) = (host(&self.q_segments_bt), host(&self.k_segments_bs));
            Arc::new(VisibleKeys::new(q, k, t, s, self.window))
        });
        visible.clone()
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
