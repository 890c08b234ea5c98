//! Learns the merges of byte-level BPE from word counts, on one thread in a fixed order.
//!
//! The trainer of the tokenizers library is not used: it counts pairs in 32 bits, and if two merges
//! spell the same token it queues a pair twice, in an order that depends on a randomly seeded hash.
//! Algorithm: Sennrich, Haddow, Birch (2016), "Neural Machine Translation of Rare Words with
//! Subword Units", algorithm 1, on bytes, with an index from pairs to words.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;

use super::words::Word;

/// A pair must occur this often to become a token.
const MIN_COUNT: u64 = 2;

/// Two tokens, as bytes, that become one.
pub(super) struct Merge {
    pub(super) left: Rc<[u8]>,
    pub(super) right: Rc<[u8]>,
}

type Pair = (u32, u32);

/// A queued pair: the most frequent one first, then the one with the greater bytes.
#[derive(PartialEq, Eq)]
struct Candidate {
    count: u64,
    left: Rc<[u8]>,
    right: Rc<[u8]>,
    pair: Pair,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        // Two merges may spell the same token, so equal bytes need the ids for a total order.
        (self.count, &self.left, &self.right, self.pair).cmp(&(
            other.count,
            &other.left,
            &other.right,
            other.pair,
        ))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Default)]
struct PairStats {
    count: u64,
    /// Words that contain or contained the pair; a word may occur twice.
    words: Vec<u32>,
}

struct Learner {
    tokens: Vec<Rc<[u8]>>,
    words: Vec<(Vec<u32>, u64)>,
    pairs: HashMap<Pair, PairStats>,
    queue: BinaryHeap<Candidate>,
}

/// Learns merges until there are `n_merges` new tokens or no pair is left.
///
/// Bytes are tokens 0 to 255; each merge that spells a new token adds the next one.
pub(super) fn learn(words: Vec<Word>, n_merges: usize) -> Vec<Merge> {
    let mut learner = Learner {
        tokens: (0..=255u8).map(|byte| Rc::from([byte])).collect(),
        words: words
            .into_iter()
            .map(|(bytes, count)| (bytes.into_iter().map(u32::from).collect(), count))
            .collect(),
        pairs: HashMap::new(),
        queue: BinaryHeap::new(),
    };
    learner.count_all();
    let mut known: HashMap<Rc<[u8]>, u32> = learner.tokens.iter().cloned().zip(0..).collect();
    let n_tokens = learner.tokens.len() + n_merges;
    let mut merges = Vec::new();
    while learner.tokens.len() < n_tokens {
        let Some(top) = learner.queue.pop() else { break };
        let count = learner.pairs.get(&top.pair).map_or(0, |stats| stats.count);
        if count != top.count {
            // The count has changed since the pair was queued. If it fell, the pair is queued again
            // with its current count; if it rose, it was queued again at that time.
            if count < top.count && count >= MIN_COUNT {
                learner.enter(top.pair, count);
            }
            continue;
        }
        // Two pairs that spell the same token share its id.
        let bytes: Rc<[u8]> = Rc::from([&*top.left, &*top.right].concat());
        let token = *known.entry(Rc::clone(&bytes)).or_insert_with(|| {
            learner.tokens.push(bytes);
            learner.tokens.len() as u32 - 1
        });
        learner.apply(top.pair, token);
        merges.push(Merge { left: top.left, right: top.right });
    }
    merges
}

impl Learner {
    fn count_all(&mut self) {
        let mut seen = Vec::new();
        for (idx, (symbols, count)) in self.words.iter().enumerate() {
            for (left, right) in symbols.iter().zip(symbols.iter().skip(1)) {
                let stats = self.pairs.entry((*left, *right)).or_insert_with(|| {
                    seen.push((*left, *right));
                    PairStats::default()
                });
                stats.count += count;
                if stats.words.last() != Some(&(idx as u32)) {
                    stats.words.push(idx as u32);
                }
            }
        }
        for pair in seen {
            let count = self.pairs.get(&pair).map_or(0, |stats| stats.count);
            self.enter(pair, count);
        }
    }

    fn enter(&mut self, pair: Pair, count: u64) {
        let token = |id: u32| self.tokens.get(id as usize).cloned();
        if count >= MIN_COUNT
            && let (Some(left), Some(right)) = (token(pair.0), token(pair.1))
        {
            self.queue.push(Candidate { count, left, right, pair });
        }
    }

    /// Replaces `pair` by `token` in every word that contains it.
    fn apply(&mut self, pair: Pair, token: u32) {
        let words = self.pairs.remove(&pair).map(|stats| stats.words).unwrap_or_default();
        let mut grown: Vec<Pair> = Vec::new();
        for idx in words {
            let Some((symbols, count)) = self.words.get_mut(idx as usize) else { continue };
            let Some(merged) = merge_word(symbols, pair, token) else { continue };
            for (left, right) in symbols.iter().zip(symbols.iter().skip(1)) {
                if let Some(stats) = self.pairs.get_mut(&(*left, *right)) {
                    stats.count -= *count;
                }
            }
            for (left, right) in merged.iter().zip(merged.iter().skip(1)) {
                let stats = self.pairs.entry((*left, *right)).or_default();
                stats.count += *count;
                if *left == token || *right == token {
                    if stats.words.last() != Some(&idx) {
                        stats.words.push(idx);
                    }
                    grown.push((*left, *right));
                }
            }
            *symbols = merged;
        }
        grown.sort_unstable();
        grown.dedup();
        for pair in grown {
            let count = self.pairs.get(&pair).map_or(0, |stats| stats.count);
            self.enter(pair, count);
        }
    }
}

/// The word with `pair` merged from left to right; None if it does not contain the pair.
fn merge_word(symbols: &[u32], pair: Pair, token: u32) -> Option<Vec<u32>> {
    let mut merged = Vec::with_capacity(symbols.len());
    let mut rest = symbols;
    while let [first, tail @ ..] = rest {
        match tail {
            [second, after @ ..] if (*first, *second) == pair => {
                merged.push(token);
                rest = after;
            }
            _ => {
                merged.push(*first);
                rest = tail;
            }
        }
    }
    (merged.len() < symbols.len()).then_some(merged)
}

#[cfg(test)]
mod tests {
    use super::learn;

    #[test]
    fn ties_go_to_the_greater_bytes_and_overlaps_merge_from_the_left() {
        let words = vec![(b"ab".to_vec(), 3), (b"cd".to_vec(), 3), (b"aaa".to_vec(), 5)];
        let merges: Vec<String> = learn(words, 10)
            .iter()
            .map(|m| String::from_utf8_lossy(&[&*m.left, &*m.right].concat()).into_owned())
            .collect();
        assert_eq!(merges, ["aa", "aaa", "cd", "ab"]);
    }
}
