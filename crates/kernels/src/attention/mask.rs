//! Attention mask: causal or bidirectional, per segment, optionally windowed, with a bias and a soft cap of the scores.
//!
//! All attention takes this type, so borders of packed samples are never lost on a path of their own.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Int, Tensor};
use kernels_cpu::{Direction, KeySegments, VisibleKeys};

/// Added to the scores of hidden keys. Finite, so that a row without visible keys stays finite.
pub(super) const HIDDEN: f32 = -1e30;

/// The keys that each query attends to, and changes of the scores.
///
/// A key is visible to a query if both have the same segment and, in a causal mask, the key is not later: key `s` is not
/// later than query `t` if `s <= t + (S - T)`. A window of `w` hides keys that are `w` or more positions away. With
/// [prefixes](Self::with_prefixes), several texts of a row continue the same earlier segment.
///
/// Forms derived from a mask are built at the first use and shared by its clones. Variants of one mask
/// ([`Self::with_window`], …) share its segments.
#[derive(Clone, Debug)]
pub struct AttentionMask {
    segments: Arc<Segments>,
    direction: Direction,
    window: Option<usize>,
    additive_b1ts: Arc<OnceLock<Tensor<4>>>,
    visible: Arc<OnceLock<Arc<VisibleKeys>>>,
    bias_bhts: Option<Tensor<4>>,
    soft_cap: Option<f64>,
}

/// The segments of queries and keys, and their copy on the host.
#[derive(Debug)]
struct Segments {
    q_bt: Tensor<2, Int>,
    k_bs: Tensor<2, Int>,
    /// The segment of each position's prefix, `[b, t]`, its own without one.
    prefixes: Option<Arc<Vec<i32>>>,
    host: OnceLock<Arc<KeySegments>>,
}

impl AttentionMask {
    /// The causal mask over keys `0..S` and queries that are their last `T` positions.
    ///
    /// # Panics
    /// If there are more queries than keys.
    pub fn causal(q_segments_bt: Tensor<2, Int>, k_segments_bs: Tensor<2, Int>) -> Self {
        let ([_, t], [_, s]) = (q_segments_bt.dims(), k_segments_bs.dims());
        assert!(t <= s, "a causal mask of {t} queries and {s} keys");
        Self::new(q_segments_bt, k_segments_bs, Direction::Causal)
    }

    /// The mask of an encoder, and of cross-attention, where keys belong to another sequence: every key of the query's
    /// segment is visible.
    pub fn bidirectional(q_segments_bt: Tensor<2, Int>, k_segments_bs: Tensor<2, Int>) -> Self {
        Self::new(q_segments_bt, k_segments_bs, Direction::Bidirectional)
    }

    fn new(q_bt: Tensor<2, Int>, k_bs: Tensor<2, Int>, direction: Direction) -> Self {
        // A mask is a constant: off the autodiff device, where operations on it would be recorded.
        let (q_bt, k_bs) = (q_bt.inner(), k_bs.inner());
        Self {
            segments: Arc::new(Segments { q_bt, k_bs, prefixes: None, host: OnceLock::new() }),
            direction,
            window: None,
            additive_b1ts: Arc::default(),
            visible: Arc::default(),
            bias_bhts: None,
            soft_cap: None,
        }
    }

    /// The same mask with a window: keys `w` or more positions before the query are hidden, and in a bidirectional mask
    /// those `w` or more positions after it too. `None`: no window.
    ///
    /// # Panics
    /// If the mask is bidirectional over unequal numbers of queries and keys, whose positions have no common count.
    #[must_use]
    pub fn with_window(self, window: Option<usize>) -> Self {
        if self.window == window {
            return self;
        }
        let [t, s] = self.lengths();
        let has_distances = self.direction == Direction::Causal || t == s;
        assert!(window.is_none() || has_distances, "a window over {t} queries and {s} other keys");
        Self { window, additive_b1ts: Arc::default(), visible: Arc::default(), ..self }
    }

    /// The same causal mask of a sequence over itself, in which texts have a prefix: a position sees the keys of its prefix
    /// too, and a window counts positions as if the text followed its prefix. `prefixes` has the prefix's segment for each
    /// position of each row, or the position's own segment. Texts with the same prefix do not see each other, so a prompt
    /// that many answers share is computed once.
    ///
    /// Where the mask is read, a text with a prefix, and the prefix, must be one run of their row, the prefix first.
    ///
    /// # Panics
    /// If the mask is not causal over as many keys as queries, or there is not a prefix for each position.
    #[must_use]
    pub fn with_prefixes(self, prefixes: Arc<Vec<i32>>) -> Self {
        let [t, s] = self.lengths();
        assert!(self.direction == Direction::Causal && t == s, "prefixes of {t} queries, {s} keys");
        let Segments { q_bt, k_bs, .. } = &*self.segments;
        assert_eq!(prefixes.len(), q_bt.shape().num_elements(), "a prefix for each position");
        let (q_bt, k_bs) = (q_bt.clone(), k_bs.clone());
        let segments = Segments { q_bt, k_bs, prefixes: Some(prefixes), host: OnceLock::new() };
        Self {
            segments: Arc::new(segments),
            additive_b1ts: Arc::default(),
            visible: Arc::default(),
            ..self
        }
    }

    /// The same mask over the last `n` keys only.
    ///
    /// # Panics
    /// If the mask has fewer keys or prefixes, or fewer keys would be left than a causal mask has queries.
    #[must_use]
    pub fn over_last_keys(self, n: usize) -> Self {
        let [t, s] = self.lengths();
        if n == s {
            return self;
        }
        assert!(n <= s, "the last {n} of {s} keys");
        assert!(self.direction == Direction::Bidirectional || t <= n, "{t} queries, {n} keys");
        let Segments { q_bt, k_bs, prefixes, .. } = &*self.segments;
        assert!(prefixes.is_none(), "the last {n} keys of texts with prefixes");
        let [b, _] = k_bs.dims();
        let (q_bt, k_bs) = (q_bt.clone(), k_bs.clone().slice([0..b, s - n..s]));
        let segments = Segments { q_bt, k_bs, prefixes: None, host: OnceLock::new() };
        Self {
            segments: Arc::new(segments),
            additive_b1ts: Arc::default(),
            visible: Arc::default(),
            ..self
        }
    }

    /// The same mask with a bias that is added to the scores after their scale: `[1 or b, 1 or h, t, s]`. Gradients flow
    /// into a bias that is tracked, though not through [`crate::recompute`].
    ///
    /// # Panics
    /// If the last two sizes are not those of the mask.
    #[must_use]
    pub fn with_bias(self, bias_bhts: Tensor<4>) -> Self {
        let [_, _, t, s] = bias_bhts.dims();
        assert_eq!([t, s], self.lengths(), "queries and keys of a bias");
        Self { bias_bhts: Some(bias_bhts), ..self }
    }

    /// The same mask with scores capped softly before the bias: `cap · tanh(score / cap)` (Gemma 2; Gemma Team 2024,
    /// section 2). `None`: no cap.
    #[must_use]
    pub fn with_soft_cap(self, soft_cap: Option<f64>) -> Self {
        Self { soft_cap, ..self }
    }

    /// `[t, s]`
    fn lengths(&self) -> [usize; 2] {
        [self.segments.q_bt.dims()[1], self.segments.k_bs.dims()[1]]
    }

    /// The bias of the scores.
    pub(super) fn bias(&self) -> Option<&Tensor<4>> {
        self.bias_bhts.as_ref()
    }

    /// The cap of the scores.
    pub(super) fn soft_cap(&self) -> Option<f64> {
        self.soft_cap
    }

    /// The segments of queries `[b, t]` and of keys `[b, s]`.
    #[cfg(feature = "gpu")]
    pub(super) fn segments(&self) -> [Tensor<2, Int>; 2] {
        [self.segments.q_bt.clone(), self.segments.k_bs.clone()]
    }

    /// Whether texts have prefixes.
    #[cfg(feature = "gpu")]
    pub(super) fn has_prefixes(&self) -> bool {
        self.segments.prefixes.is_some()
    }

    /// Whether later keys are hidden.
    #[cfg(feature = "gpu")]
    pub(super) fn direction(&self) -> Direction {
        self.direction
    }

    /// Positions from which on keys are hidden.
    #[cfg(feature = "gpu")]
    pub(super) fn window(&self) -> Option<usize> {
        self.window
    }

    /// 0 for visible keys, a very large negative number for hidden ones: `[b, 1, t, s]`.
    pub fn additive(&self) -> Tensor<4> {
        self.additive_b1ts.get_or_init(|| self.build()).clone()
    }

    /// The visible keys, on the host.
    pub(super) fn visible(&self) -> Arc<VisibleKeys> {
        let visible = self.visible.get_or_init(|| {
            let segments = self.segments.host.get_or_init(|| {
                let host = |x: &Tensor<2, Int>| -> Vec<i32> {
                    x.clone().into_data().convert::<i32>().iter::<i32>().collect()
                };
                let [t, s] = self.lengths();
                let (q, k) = (host(&self.segments.q_bt), host(&self.segments.k_bs));
                let segments = KeySegments::new(q, k, t, s);
                Arc::new(match &self.segments.prefixes {
                    Some(prefixes) => segments.with_prefixes(prefixes.to_vec()),
                    None => segments,
                })
            });
            Arc::new(VisibleKeys::new(segments.clone(), self.direction, self.window))
        });
        visible.clone()
    }

    fn build(&self) -> Tensor<4> {
        let Segments { q_bt, k_bs, prefixes, .. } = &*self.segments;
        let ([b, t], [_, s]) = (q_bt.dims(), k_bs.dims());
        if prefixes.is_some() {
            let mut additive = vec![HIDDEN; b * t * s];
            self.visible().for_each(|row, query, key| additive[(row * t + query) * s + key] = 0.0);
            return Tensor::<1>::from_data(additive.as_slice(), &q_bt.device())
                .reshape([b, 1, t, s]);
        }
        let mut near = vec![HIDDEN; t * s];
        for (query, row) in near.chunks_mut(s.max(1)).enumerate() {
            row[self.direction.candidates(query, t, s, self.window)].fill(0.0);
        }
        let near_ts = Tensor::<1>::from_data(near.as_slice(), &q_bt.device()).reshape([1, t, s]);
        let q_bt1 = q_bt.clone().reshape([b, t, 1]).expand([b, t, s]);
        let k_b1s = k_bs.clone().reshape([b, 1, s]).expand([b, t, s]);
        let foreign_bts = q_bt1.not_equal(k_b1s);
        near_ts.expand([b, t, s]).mask_fill(foreign_bts, HIDDEN).reshape([b, 1, t, s])
    }
}
