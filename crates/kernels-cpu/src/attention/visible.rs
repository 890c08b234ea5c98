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
    /// The segment of each query's prefix, its own without one; empty if no query has one.
    prefixes: Vec<i32>,
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
        Self { q_segments, k_segments, prefixes: Vec::new(), runs, t, s }
    }

    /// The same segments, where each position attends to those of a second segment too, which its text continues.
    /// `prefixes` has that segment for each position, or the position's own.
    ///
    /// # Panics
    /// If queries are not the positions of the keys, if a segment with a prefix or the prefix is not one run of its row, or
    /// if the prefix does not come first.
    #[must_use]
    pub fn with_prefixes(self, prefixes: Vec<i32>) -> Self {
        assert!(self.t == self.s, "prefixes of {} queries and {} keys", self.t, self.s);
        assert_eq!(prefixes.len(), self.q_segments.len(), "a prefix for each position");
        let segments = Self { prefixes, ..self };
        for row in 0..segments.runs.len() {
            for query in 0..segments.t {
                let Some((own, prefix)) = segments.continued(row, query) else { continue };
                assert!(prefix.end <= own.start, "a prefix at {prefix:?} of a text at {own:?}");
            }
        }
        segments
    }

    /// The run of a query's own segment and that of its prefix, if it has one.
    fn continued(&self, row: usize, query: usize) -> Option<(Run, Run)> {
        let own = self.q_segments[row * self.t + query];
        let prefix = self.prefixes.get(row * self.t + query).copied().filter(|it| *it != own)?;
        let run = |segment: i32| match self.runs[row].get(&segment).map(Vec::as_slice) {
            Some([run]) => *run,
            other => panic!("segment {segment} with a prefix or as one: {other:?}"),
        };
        Some((run(own), run(prefix)))
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
    /// The visible keys of each query's own segment.
    ranges: Vec<Range>,
    /// Those of its prefix; empty if no query has one.
    prefixes: Vec<Range>,
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

impl Range {
    pub(super) const EMPTY: Self = Self { start: 0, end: 0, whole: true };

    fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The part within `n` keys from `from` on, counted from there.
    fn within(self, from: usize, n: usize) -> Self {
        let start = self.start.clamp(from, from + n);
        Self { start: start - from, end: self.end.clamp(start, from + n) - from, ..self }
    }
}

/// Prefix and own keys of a block this near to each other are one span.
const GAP: usize = 32;
/// A block of queries ends at the border of a text that continues a prefix if it has as many positions.
const CUT: usize = 16;

impl VisibleKeys {
    /// A key is visible to a query if both have the same segment and the key is among the query's
    /// [candidates](Direction::candidates). The keys of a query's prefix are visible too; a window counts positions as if
    /// the query's own segment followed its prefix.
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
        let window = window.unwrap_or(usize::MAX);
        let prefix = |at: usize| {
            let Some((own, prefix)) = segments.continued(at / t, at % t) else {
                return Range::EMPTY;
            };
            // Keys before the query's text are as much further away as the text has come.
            let end = prefix.end + at % t - own.start + 1;
            let start = end.saturating_sub(window).clamp(prefix.start, prefix.end);
            Range { start, end: prefix.end, whole: true }
        };
        let prefixes = (0..segments.prefixes.len()).map(prefix).collect();
        Self { segments, ranges, prefixes, t, s }
    }

    /// The keys in `from..from + n` that are visible to a query, counted from `from`.
    pub(super) fn within(&self, row: usize, query: usize, from: usize, n: usize) -> Range {
        let at = row * self.t + query;
        let own = self.ranges[at].within(from, n);
        let prefix = self.prefixes.get(at).map_or(Range::EMPTY, |range| range.within(from, n));
        match (prefix.is_empty(), own.is_empty()) {
            (true, _) => own,
            (_, true) => prefix,
            _ => Range {
                start: prefix.start,
                end: own.end,
                whole: own.whole && prefix.end == own.start,
            },
        }
    }

    /// Up to two ranges of keys, one after the other, that contain every key visible to one of these queries.
    pub(super) fn spans(&self, row: usize, queries: std::ops::Range<usize>) -> [(usize, usize); 2] {
        let of = row * self.t + queries.start..row * self.t + queries.end;
        let span = |ranges: &[Range]| {
            let seen = || ranges.iter().filter(|range| !range.is_empty());
            let start = seen().map(|range| range.start).min().unwrap_or(0);
            (start, seen().map(|range| range.end).max().unwrap_or(0))
        };
        let own = span(&self.ranges[of.clone()]);
        let prefix = self.prefixes.get(of).map_or((0, 0), span);
        match (prefix, own) {
            ((_, 0), _) | (_, (_, 0)) => [prefix, own],
            _ if prefix.1 + GAP < own.0 => [prefix, own],
            _ => [(0, 0), (prefix.0.min(own.0), prefix.1.max(own.1))],
        }
    }

    /// The queries of a row in blocks of at most `size`. With prefixes, blocks end where texts do unless they are short, so
    /// that few keys of other texts are multiplied.
    pub(super) fn blocks(&self, row: usize, size: usize) -> Vec<(usize, usize)> {
        let t = self.t;
        let fixed = |start| (start, size.min(t - start));
        if self.prefixes.is_empty() {
            return (0..t).step_by(size).map(fixed).collect();
        }
        let segments = &self.segments.q_segments[row * t..(row + 1) * t];
        let (mut blocks, mut start) = (Vec::new(), 0);
        for at in 1..=t {
            let n = at - start;
            let is_border = at == t || segments[at] != segments[at - 1];
            if n == size || at == t || (is_border && n >= CUT) {
                blocks.push((start, n));
                start = at;
            }
        }
        blocks
    }

    /// Calls `see` for every pair of a query and a key that is visible to it: row, query, key.
    pub fn for_each(&self, mut see: impl FnMut(usize, usize, usize)) {
        for at in 0..self.ranges.len() {
            let (row, query) = (at / self.t, at % self.t);
            let range = self.within(row, query, 0, self.s);
            let mut scores = vec![0.0; range.end - range.start];
            if !range.whole {
                self.hide(row, query, range.start, &mut scores);
            }
            for (key, score) in (range.start..).zip(scores) {
                if score == 0.0 {
                    see(row, query, key);
                }
            }
        }
    }

    /// Sets the scores of keys in `from..` that are not visible to the query to minus infinity.
    pub(super) fn hide(&self, row: usize, query: usize, from: usize, scores: &mut [f32]) {
        let at = row * self.t + query;
        let segment = self.segments.q_segments[at];
        let prefix = self.segments.prefixes.get(at).copied().unwrap_or(segment);
        let keys = &self.segments.k_segments[row * self.s + from..];
        for (score, key) in scores.iter_mut().zip(keys) {
            if *key != segment && *key != prefix {
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
        _ => Range::EMPTY,
    }
}

#[cfg(test)]
mod tests;
