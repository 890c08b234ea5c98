//! Merges of a sentencepiece BPE model, which a file stores as scores of pieces.

use std::collections::BTreeMap;

use crate::FoundMerges;

/// A piece with its id and score.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) id: usize,
    pub(super) text: &'a str,
    pub(super) score: f64,
}

/// The merges in the order of their priority: a pair of pieces whose concatenation is a piece has the priority of that
/// piece's score; among equals, longer left parts come first.
///
/// # Errors
/// The reason for refusing the file, if a piece is too long or there are too many merges.
pub(super) fn merges<'a>(pieces: &[Piece<'a>]) -> Result<Vec<(&'a str, &'a str)>, String> {
    let ids: BTreeMap<&str, usize> = pieces.iter().map(|piece| (piece.text, piece.id)).collect();
    let (mut found, mut budget) = (Vec::new(), FoundMerges::default());
    for piece in pieces {
        FoundMerges::check_token(piece.text.len())?;
        for (at, _) in piece.text.char_indices().skip(1) {
            let (left, right) = piece.text.split_at(at);
            if ids.contains_key(left) && ids.contains_key(right) {
                budget.add(piece.text.len())?;
                found.push((piece.score, piece.id, left, right));
            }
        }
    }
    found.sort_by(|a, b| {
        let by_score = b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        by_score.then(b.2.len().cmp(&a.2.len()))
    });
    Ok(found.into_iter().map(|(_, _, left, right)| (left, right)).collect())
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
        let expected = [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")];
        assert_eq!(merges(&pieces).unwrap(), expected);
    }

    /// 666 kB of `a`, `aa`, `aaa`, … had a gigabyte of merges.
    #[test]
    fn too_many_merges_are_refused() {
        let texts: Vec<String> = (1..1000).map(|n| "a".repeat(n)).collect();
        let pieces: Vec<Piece> =
            texts.iter().enumerate().map(|(id, text)| Piece { id, text, score: 0.0 }).collect();
        let error = merges(&pieces).unwrap_err();
        assert_eq!(error, "too many ways to build its tokens of other tokens");
        let long = "a".repeat(200_000);
        let error = merges(&[Piece { id: 0, text: &long, score: 0.0 }]).unwrap_err();
        assert_eq!(error, "a token of 200000 bytes");
    }
}
