//! Patterns → distinct comments, split by pattern.
//!
//! Each pattern is filled in a shuffled order over all its combinations, so that every filler comes
//! about equally often. It deliberately knows nothing of prompts and pairs.

use std::collections::{BTreeMap, BTreeSet};

use seed::{Purpose, derive, shuffled_index};

use crate::error::{Error, Result};
use crate::source::{Emotion, Pattern, Piece, Source};
use crate::{HELDOUT_ONE_IN, N_COMMENTS, N_HELDOUT_COMMENTS, SEED};

/// Which side of the split a pattern, and every comment made from it, is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Split {
    /// For training.
    Train,
    /// Never seen in training, down to its pattern.
    Heldout,
}

impl Split {
    /// As it stands in the files.
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
    /// What it says.
    pub text: String,
    /// What it expresses.
    pub emotion: Emotion,
    /// What it is about.
    pub topic: String,
    /// The number of its pattern.
    pub pattern: usize,
    /// Its pattern's side of the split.
    pub split: Split,
}

/// Fills [`N_COMMENTS`] distinct comments, half of them kind on either side of the split, in
/// shuffled order: training comments first, then held-out ones.
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

/// The pattern filled in one of its [`Pattern::n_fills`] ways.
///
/// A filler that opens a sentence gets a capital.
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

/// A tenth of the patterns of every emotion: those with the smallest keys, where a pattern's key
/// depends on its text alone, so that adding a pattern moves few others across the split.
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

/// Adds `total` comments, as evenly over the patterns as their numbers of fillings allow.
fn fill_part(
    source: &Source,
    patterns: &[&Pattern],
    split: Split,
    total: usize,
    seen: &mut BTreeSet<String>,
    comments: &mut Vec<Comment>,
) -> Result<()> {
    // Those with the fewest fillings first: what they can't give, the later ones share.
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
