//! Patterns → distinct comments, split by pattern.
//!
//! Each pattern is filled in a shuffled order over all its combinations, so all fillers occur about
//! equally often. Prompts and pairs are made in `outputs`.

use std::collections::{BTreeMap, BTreeSet};

use seed::{Purpose, derive, shuffled_index};

use crate::error::{Error, Result};
use crate::source::{Emotion, Pattern, Piece, Source};
use crate::{HELDOUT_ONE_IN, N_COMMENTS, N_HELDOUT_COMMENTS, SEED};

/// Split of a pattern and of every comment made from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Split {
    /// Training set.
    Train,
    /// Validation set: neither the comment nor its pattern occurs in training.
    Heldout,
}

impl Split {
    /// The name used in the files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Heldout => "heldout",
        }
    }
}

/// One filled comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// The text.
    pub text: String,
    /// The emotion it expresses.
    pub emotion: Emotion,
    /// The topic.
    pub topic: String,
    /// Index of its pattern.
    pub pattern: usize,
    /// Split of its pattern.
    pub split: Split,
}

/// Fills [`N_COMMENTS`] distinct comments, half of them kind in each split, in shuffled order:
/// training comments first, then held-out ones.
pub fn fill_all(source: &Source) -> Result<Vec<Comment>> {
    let heldout = heldout_patterns(&source.patterns);
    let mut seen = BTreeSet::new();
    let mut comments = Vec::with_capacity(N_COMMENTS);
    for (split, total) in
        [(Split::Train, N_COMMENTS - N_HELDOUT_COMMENTS), (Split::Heldout, N_HELDOUT_COMMENTS)]
    {
        let mut part = Vec::with_capacity(total);
        for kind in [true, false] {
            let patterns: Vec<&Pattern> = source
                .patterns
                .iter()
                .filter(|pattern| pattern.emotion.kind == kind)
                .filter(|pattern| heldout.contains(&pattern.id) == (split == Split::Heldout))
                .collect();
            fill_part(source, &patterns, split, total / 2, &mut seen, &mut part)?;
        }
        comments.extend(shuffled(part, split.name()));
    }
    Ok(comments)
}

/// The pattern with one of its [`Pattern::n_fills`] combinations of fillers.
///
/// A filler at the start of a sentence is capitalised.
pub fn fill_pattern(source: &Source, pattern: &Pattern, fill: usize) -> String {
    let mut text = String::with_capacity(pattern.text.len() + 24);
    let mut rest = fill;
    for piece in &pattern.pieces {
        match piece {
            Piece::Text(words) => text.push_str(words),
            Piece::Slot(slot) => {
                let fillers = source.fillers(pattern, *slot);
                let n = fillers.len().max(1);
                let filler = fillers.get(rest % n).map_or("", String::as_str);
                rest /= n;
                push_filler(&mut text, filler);
            }
        }
    }
    text
}

/// A tenth of the patterns of each emotion: those with the smallest keys. A pattern's key depends
/// on its text alone, so adding a pattern moves few others to the other split.
fn heldout_patterns(patterns: &[Pattern]) -> BTreeSet<usize> {
    let mut keys: BTreeMap<Emotion, Vec<(u64, usize)>> = BTreeMap::new();
    for pattern in patterns {
        let key = derive(SEED, &pattern.text, Purpose::Split, 0, 0);
        keys.entry(pattern.emotion).or_default().push((key, pattern.id));
    }
    let mut heldout = BTreeSet::new();
    for keys in keys.values_mut() {
        keys.sort_unstable();
        let n_heldout = (keys.len() + HELDOUT_ONE_IN / 2) / HELDOUT_ONE_IN;
        heldout.extend(keys.iter().take(n_heldout).map(|&(_, id)| id));
    }
    heldout
}

/// Adds `total` comments, spread over the patterns as evenly as their numbers of combinations allow.
fn fill_part(
    source: &Source,
    patterns: &[&Pattern],
    split: Split,
    total: usize,
    seen: &mut BTreeSet<String>,
    comments: &mut Vec<Comment>,
) -> Result<()> {
    // Patterns with the fewest combinations first, so later ones can make up the rest.
    let mut order: Vec<&Pattern> = patterns.to_vec();
    order.sort_by_key(|pattern| (pattern.n_fills, pattern.id));
    let mut missing = total;
    for (place, pattern) in order.iter().enumerate() {
        let share = missing / (order.len() - place);
        let key = derive(SEED, &pattern.text, Purpose::Sample, 0, 0);
        let mut taken = 0;
        for nth in 0..pattern.n_fills as u64 {
            if taken == share {
                break;
            }
            let fill = shuffled_index(key, pattern.n_fills as u64, nth) as usize;
            let text = fill_pattern(source, pattern, fill);
            if seen.insert(text.clone()) {
                let topic = pattern.topic.clone();
                let (emotion, pattern) = (pattern.emotion, pattern.id);
                comments.push(Comment { text, emotion, topic, pattern, split });
                taken += 1;
            }
        }
        missing -= taken;
    }
    if missing > 0 {
        return Err(Error::TooFew {
            part: split.name().to_owned(),
            found: total - missing,
            wanted: total,
        });
    }
    Ok(())
}

fn shuffled(comments: Vec<Comment>, name: &str) -> Vec<Comment> {
    let key = derive(SEED, name, Purpose::Shuffle, 0, 0);
    let n = comments.len() as u64;
    let mut keyed: Vec<(u64, Comment)> =
        (0..n).map(|i| shuffled_index(key, n, i)).zip(comments).collect();
    keyed.sort_by_key(|&(place, _)| place);
    keyed.into_iter().map(|(_, comment)| comment).collect()
}

fn push_filler(text: &mut String, filler: &str) {
    let before = text.trim_end();
    let mut letters = filler.chars();
    match letters.next() {
        Some(first) if before.is_empty() || before.ends_with(['.', '!', '?']) => {
            text.extend(first.to_uppercase());
            text.push_str(letters.as_str());
        }
        _ => text.push_str(filler),
    }
}
