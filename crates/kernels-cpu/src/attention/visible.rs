//! The keys that each query attends to, as ranges.

use std::collections::BTreeMap;

/// The keys that each query attends to, on the host.
#[derive(Debug)]
pub struct VisibleKeys {
    ranges: Vec<Range>,
    q_segments: Vec<i32>,
    k_segments: Vec<i32>,
    pub(super) t: usize,
    pub(super) s: usize,
}

/// The keys from the first visible one to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: usize,
    /// One after the last; equal to `start` if none is visible.
    pub(super) end: usize,
    /// Whether all keys of the range are visible.
    pub(super) whole: bool,
}

impl VisibleKeys {
    /// Key `s` is visible to query `t` if both have the same segment, `s <= t + (S - T)`, and, with a window of `w`,
    /// `s > t + (S - T) - w`. Segments are `[b, t]` and `[b, s]` in row-major order.
    pub fn new(
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
                // The usual case: the keys up to the query's own position are one run of its segment.
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

    /// The smallest range of keys that contains every key visible to one of these queries.
    pub(super) fn span(&self, row: usize, queries: std::ops::Range<usize>) -> (usize, usize) {
        let ranges = &self.ranges[row * self.t + queries.start..row * self.t + queries.end];
        let seen = || ranges.iter().filter(|range| range.start < range.end);
        let start = seen().map(|range| range.start).min().unwrap_or(0);
        (start, seen().map(|range| range.end).max().unwrap_or(0))
    }

    /// Sets the scores of keys in `from..` that are not visible to the query to minus infinity.
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

/// For each index the start of its run of equal values, and for each value its first index.
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
    use super::{Range, VisibleKeys};

    #[test]
    fn ranges_are_tight() {
        for window in [None, Some(1), Some(3)] {
            for (q, k) in [
                (vec![0; 6], vec![0; 6]),
                (vec![0, 0, 1, 1, 1, 2], vec![0, 0, 1, 1, 1, 2]),
                (vec![-1, -1, 4, 4, -1, -1], vec![-1, -1, 4, 4, -1, -1]),
                (vec![0, 0], vec![-1, -1, 0, 0, 0, 0]),
                (vec![7, 0], vec![0, 0, 1]),
            ] {
                let (t, s) = (q.len(), k.len());
                let visible = VisibleKeys::new(q.clone(), k.clone(), t, s, window);
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
