//! Who sees whom, in the one type that all attention reads.
//!
//! There is deliberately no way to attend without a mask: borders of packed samples travel in the
//! same type as causality, so no path can forget them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use burn::tensor::{Int, Tensor};

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
    visible: Arc<OnceLock<Visible>>,
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

    /// What each query sees, on the host.
    pub(super) fn visible(&self) -> &Visible {
        self.visible.get_or_init(|| {
            let [_, t] = self.q_segments_bt.dims();
            let [_, s] = self.k_segments_bs.dims();
            let host = |x: &Tensor<2, Int>| -> Vec<i32> {
                x.clone().into_data().convert::<i32>().iter::<i32>().collect()
            };
            Visible::new(host(&self.q_segments_bt), host(&self.k_segments_bs), t, s, self.window)
        })
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

/// What each query sees.
#[derive(Debug)]
pub(super) struct Visible {
    ranges: Vec<Range>,
    q_segments: Vec<i32>,
    k_segments: Vec<i32>,
    pub(super) t: usize,
    pub(super) s: usize,
}

/// The keys from the first that a query sees to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: usize,
    /// Behind the last; equal to `start` where none is seen.
    pub(super) end: usize,
    /// Whether it sees all between.
    pub(super) whole: bool,
}

impl Visible {
    fn new(
        q_segments: Vec<i32>,
        k_segments: Vec<i32>,
        t: usize,
        s: usize,
        window: Option<usize>,
    ) -> Self {
        let past = s - t;
        let mut ranges = Vec::with_capacity(q_segments.len());
        for (q_row, k_row) in q_segments.chunks(t.max(1)).zip(k_segments.chunks(s.max(1))) {
            let (starts, firsts) = runs(k_row);
            for (query, segment) in q_row.iter().enumerate() {
                let last = query + past;
                let first = window.map_or(0, |window| (last + 1).saturating_sub(window));
                // The usual case: the keys up to the query's own place are one run of its segment.
                let run = starts[last];
                let only_run = firsts.get(segment) == Some(&run) || first >= run;
                ranges.push(if k_row[last] == *segment && only_run {
                    Range { start: first.max(run), end: last + 1, whole: true }
                } else {
                    look(&k_row[..=last], *segment, first)
                });
            }
        }
        Self { ranges, q_segments, k_segments, t, s }
    }

    pub(super) fn range(&self, row: usize, query: usize) -> Range {
        self.ranges[row * self.t + query]
    }

    /// The keys that some of these queries see: a range that holds them all.
    pub(super) fn span(&self, row: usize, queries: std::ops::Range<usize>) -> (usize, usize) {
        let ranges = &self.ranges[row * self.t + queries.start..row * self.t + queries.end];
        let seen = || ranges.iter().filter(|range| range.start < range.end);
        let start = seen().map(|range| range.start).min().unwrap_or(0);
        (start, seen().map(|range| range.end).max().unwrap_or(0))
    }

    /// Overwrites the scores of keys in `from..` that the query doesn't see.
    pub(super) fn hide(&self, row: usize, query: usize, from: usize, scores: &mut [f32]) {
        let segment = self.q_segments[row * self.t + query];
        let keys = &self.k_segments[row * self.s + from..];
        for (score, key) in scores.iter_mut().zip(keys) {
            if *key != segment {
                *score = f32::NEG_INFINITY;
            }
        }
    }
}

/// For each place where its run of equal values starts, and for each value where it first stands.
fn runs(segments: &[i32]) -> (Vec<usize>, BTreeMap<i32, usize>) {
    let mut firsts = BTreeMap::new();
    let mut starts: Vec<usize> = Vec::with_capacity(segments.len());
    for (idx, segment) in segments.iter().enumerate() {
        let goes_on = idx > 0 && segments[idx - 1] == *segment;
        let start = if goes_on { starts[idx - 1] } else { idx };
        if !goes_on {
            firsts.entry(*segment).or_insert(idx);
        }
        starts.push(start);
    }
    (starts, firsts)
}

fn look(keys: &[i32], segment: i32, first: usize) -> Range {
    let same = |key: &i32| *key == segment;
    let keys = &keys[first..];
    let (Some(start), Some(last)) = (keys.iter().position(same), keys.iter().rposition(same))
    else {
        return Range { start: 0, end: 0, whole: true };
    };
    let whole = keys[start..=last].iter().all(same);
    Range { start: first + start, end: first + last + 1, whole }
}

#[cfg(test)]
mod tests {
    use super::{Range, Visible};

    #[test]
    fn ranges_hold_what_is_seen_and_no_more_at_their_ends() {
        for window in [None, Some(1), Some(3)] {
            for (q, k) in [
                (vec![0; 6], vec![0; 6]),
                (vec![0, 0, 1, 1, 1, 2], vec![0, 0, 1, 1, 1, 2]),
                (vec![-1, -1, 4, 4, -1, -1], vec![-1, -1, 4, 4, -1, -1]),
                (vec![0, 0], vec![-1, -1, 0, 0, 0, 0]),
                (vec![7, 0], vec![0, 0, 1]),
            ] {
                let (t, s) = (q.len(), k.len());
                let visible = Visible::new(q.clone(), k.clone(), t, s, window);
                for query in 0..t {
                    let last = query + s - t;
                    let sees = |key: &usize| {
                        k[*key] == q[query] && window.is_none_or(|window| last - key < window)
                    };
                    let seen: Vec<usize> = (0..=last).filter(sees).collect();
                    let want = match (seen.first(), seen.last()) {
                        (Some(first), Some(last)) => Range {
                            start: *first,
                            end: last + 1,
                            whole: seen.len() == last + 1 - first,
                        },
                        _ => Range { start: 0, end: 0, whole: true },
                    };
                    assert_eq!(visible.range(0, query), want, "{q:?} {k:?} {window:?} {query}");
                }
            }
        }
    }
}
