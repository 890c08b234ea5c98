//! Ranges, blocks and spans against the definition of visibility.

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
                assert_eq!(visible.within(0, query, 0, s), want, "{q:?} {k:?} {window:?} {query}");
            }
        }
    }
}

#[test]
fn texts_see_their_prefix_and_not_each_other() {
    // A prompt of 5, answers of 40, 3, 20 and 90, and a second prompt of 2 with an answer of 3; then padding.
    let (q, prefixes) = texts(&[
        (0, 5, 0),
        (1, 40, 0),
        (2, 3, 0),
        (3, 20, 0),
        (4, 90, 0),
        (5, 2, 5),
        (6, 3, 5),
        (-1, 4, -1),
    ]);
    let t = q.len();
    // Its position in its text: prefix and own segment.
    let position = |at: usize| {
        let first = |segment: i32| q.iter().position(|it| *it == segment).unwrap();
        let own = at - first(q[at]);
        let n = q.iter().filter(|it| **it == prefixes[at]).count();
        if prefixes[at] == q[at] { own } else { n + own }
    };
    for window in [None, Some(1), Some(3), Some(7), Some(60)] {
        let segments = KeySegments::new(q.clone(), q.clone(), t, t).with_prefixes(prefixes.clone());
        let visible = VisibleKeys::new(Arc::new(segments), Direction::Causal, window);
        let sees = |query: usize, key: usize| {
            key <= query
                && (q[key] == q[query] || q[key] == prefixes[query])
                && window.is_none_or(|window| position(query) - position(key) < window)
        };
        let mut found = vec![false; t * t];
        visible.for_each(|_, query, key| found[query * t + key] = true);
        for query in 0..t {
            for key in 0..t {
                assert_eq!(found[query * t + key], sees(query, key), "{window:?} {query} {key}");
            }
        }
        let blocks = visible.blocks(0, 64);
        let mut next = 0;
        for (start, n) in blocks {
            assert!(start == next && n <= 64, "{start} {n}");
            next = start + n;
            let spans = visible.spans(0, start..next);
            for (query, key) in (start..next).flat_map(|query| (0..t).map(move |key| (query, key)))
            {
                let is_in = spans.iter().any(|(start, end)| (*start..*end).contains(&key));
                assert!(is_in || !sees(query, key), "{window:?} {query} {key} {spans:?}");
            }
        }
        assert_eq!(next, t);
    }
}

/// Segments and prefixes of runs: segment, length, prefix.
fn texts(runs: &[(i32, usize, i32)]) -> (Vec<i32>, Vec<i32>) {
    let of = |value: fn(&(i32, usize, i32)) -> i32| {
        runs.iter().flat_map(|run| std::iter::repeat_n(value(run), run.1)).collect()
    };
    (of(|run| run.0), of(|run| run.2))
}

#[test]
fn blocks_of_long_answers_read_no_other_answer() {
    let (q, prefixes) = texts(&[(0, 32, 0), (1, 63, 0), (2, 63, 0), (3, 63, 0)]);
    let t = q.len();
    let segments = KeySegments::new(q.clone(), q, t, t).with_prefixes(prefixes);
    let visible = VisibleKeys::new(Arc::new(segments), Direction::Causal, None);
    assert_eq!(visible.blocks(0, 64), [(0, 32), (32, 63), (95, 63), (158, 63)]);
    assert_eq!(visible.spans(0, 158..221), [(0, 32), (158, 221)]);
    assert_eq!(visible.spans(0, 32..95), [(0, 0), (0, 95)]);
}

#[test]
#[should_panic(expected = "a prefix at")]
fn a_prefix_after_its_text_is_refused() {
    let _ = KeySegments::new(vec![0, 1], vec![0, 1], 2, 2).with_prefixes(vec![1, 1]);
}

#[test]
#[should_panic(expected = "segment 0 with a prefix or as one")]
fn a_prefix_in_two_parts_is_refused() {
    let _ = KeySegments::new(vec![0, 1, 0], vec![0, 1, 0], 3, 3).with_prefixes(vec![0, 0, 0]);
}
