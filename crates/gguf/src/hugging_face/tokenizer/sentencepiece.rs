//! Merges of a sentencepiece BPE model, which a file stores as scores of pieces.

use std::collections::BTreeMap;

/// A piece with its id and score.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) id: usize,
    pub(super) text: &'a str,
    pub(super) score: f64,
}

/// The merges in the order of their priority: a pair of pieces whose concatenation is a piece has the priority of that
/// piece's score; among equals, longer left parts come first.
pub(super) fn merges<'a>(pieces: &[Piece<'a>]) -> Vec<(&'a str, &'a str)> {
    let ids: BTreeMap<&str, usize> = pieces.iter().map(|piece| (piece.text, piece.id)).collect();
    let mut found = Vec::new();
    for piece in pieces {
        for (at, _) in piece.text.char_indices().skip(1) {
            let (left, right) = piece.text.split_at(at);
            if ids.contains_key(left) && ids.contains_key(right) {
                found.push((piece.score, piece.id, left, right));
            }
        }
    }
    found.sort_by(|a, b| {
        let by_score = b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        by_score.then(b.2.len().cmp(&a.2.len()))
    });
    found.into_iter().map(|(_, _, left, right)| (left, right)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_follow_the_scores() {
        let texts = ["a", "b", "c", "bc", "ab", "abc"];
        let scores = [-9.0, -9.0, -9.0, -2.0, -1.0, -3.0];
        let pieces: Vec<Piece> =
            (0..6).map(|id| Piece { id, text: texts[id], score: scores[id] }).collect();
        assert_eq!(merges(&pieces), [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")]);
    }
}
