//! The keys that each query attends to, as ranges.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Whether queries attend to later keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To earlier keys and the query's own position only; queries are the last positions of the keys.
    Causal,
    /// To all keys.
    Bidirectional,
}

impl Direction {
    /// The keys that are near enough to a query, of whatever segment. A window of `w` leaves those less than `w`
    /// positions away.
    ///
    /// # Panics
    /// If a causal direction has more queries than keys.
    pub fn candidates(
        self,
        query: usize,
        t: usize,
        s: usize,
        window: Option<usize>,
    ) -> std::ops::Range<usize> {
        let window = window.unwrap_or(usize::MAX);
        match self {
            Self::Causal => {
                let end = query + s - t + 1;
                end.saturating_sub(window)..end
            }
            Self::Bidirectional => {
                (query + 1).saturating_sub(window)..query.saturating_add(window).min(s)
            }
        }
    }
}

/// The segments of queries and keys, and the runs of equal segments among the keys.
#[derive(Debug)]
pub struct KeySegments {
    q_segments: Vec<i32>,
    k_segments: Vec<i32>,
    /// For each row and segment its runs, in order.
    runs: Vec<BTreeMap<i32, Vec<Run>>>,
    t: usize,
    s: usize,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    start: usize,
    end: usize,
}

impl KeySegments {
    /// Segments are `[b, t]` and `[b, s]` in row-major order.
    pub fn new(q_segments: Vec<i32>, k_segments: Vec<i32>, t: usize, s: usize) -> Self {
        let mut runs: Vec<_> = k_segments.chunks(s.max(1)).map(runs_of).collect();
        // Without keys there is no row to walk.
        runs.resize_with(q_segments.len() / t.max(1), BTreeMap::new);
        Self { q_segments, k_segments, runs, t, s }
    }
}

fn runs_of(segments: &[i32]) -> BTreeMap<i32, Vec<Run>> {
    let mut runs: BTreeMap<i32, Vec<Run>> = BTreeMap::new();
    let mut start = 0;
    for run in segments.chunk_by(|a, b| a == b) {
        let end = start + run.len();
        runs.entry(run[0]).or_default().push(Run { start, end });
        start = end;
    }
    runs
}

/// The keys that each query attends to, on the host.
#[derive(Debug)]
pub struct VisibleKeys {
    segments: Arc<KeySegments>,
    ranges: Vec<Range>,
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
    /// A key is visible to a query if both have the same segment and the key is among the query's
    /// [candidates](Direction::candidates).
    pub fn new(segments: Arc<KeySegments>, direction: Direction, window: Option<usize>) -> Self {
        let KeySegments { q_segments, runs, t, s, .. } = &*segments;
        let (t, s) = (*t, *s);
        let mut ranges = Vec::with_capacity(q_segments.len());
        for (q_row, runs) in q_segments.chunks(t.max(1)).zip(runs) {
            for (query, segment) in q_row.iter().enumerate() {
                let near = direction.candidates(query, t, s, window);
                ranges.push(range_of(runs.get(segment).map_or(&[], Vec::as_slice), near));
            }
        }
        Self { segments, ranges, t, s }
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
        let segment = self.segments.q_segments[row * self.t + query];
        let keys = &self.segments.k_segments[row * self.s + from..];
        for (score, key) in scores.iter_mut().zip(keys) {
            if *key != segment {
                *score = f32::NEG_INFINITY;
            }
        }
    }
}

/// The keys of `near` that are in one of a segment's runs.
fn range_of(runs: &[Run], near: std::ops::Range<usize>) -> Range {
    let first = runs.partition_point(|run| run.end <= near.start);
    let behind = runs.partition_point(|run| run.start < near.end);
    match runs.get(first..behind) {
        Some([start, .., end]) => {
            Range { start: start.start.max(near.start), end: end.end.min(near.end), whole: false }
        }
        Some([run]) => {
            Range { start: run.start.max(near.start), end: run.end.min(near.end), whole: true }
        }
        _ => Range { start: 0, end: 0, whole: true },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Direction, KeySegments, Range, VisibleKeys};

    #[test]
    fn ranges_are_tight() {
        for (direction, window) in [Direction::Causal, Direction::Bidirectional]
            .into_iter()
            .flat_map(|direction| [None, Some(1), Some(3)].map(|window| (direction, window)))
        {
            for (q, k) in [
                (vec![0; 6], vec![0; 6]),
                (vec![0, 0, 1, 1, 1, 2], vec![0, 0, 1, 1, 1, 2]),
                (vec![-1, -1, 4, 4, -1, -1], vec![-1, -1, 4, 4, -1, -1]),
                (vec![0, 0], vec![-1, -1, 0, 0, 0, 0]),
                (vec![7, 0], vec![0, 0, 1]),
            ] {
                let (t, s) = (q.len(), k.len());
                if direction == Direction::Bidirectional && window.is_some() && t != s {
                    continue;
                }
                let segments = Arc::new(KeySegments::new(q.clone(), k.clone(), t, s));
                let visible = VisibleKeys::new(segments, direction, window);
                for query in 0..t {
                    let now = if direction == Direction::Causal { query + s - t } else { query };
                    let sees = |key: &usize| {
                        k[*key] == q[query]
                            && (direction == Direction::Bidirectional || *key <= now)
                            && window.is_none_or(|window| now.abs_diff(*key) < window)
                    };
                    let seen: Vec<usize> = (0..s).filter(sees).collect();
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
