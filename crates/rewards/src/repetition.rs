//! The `repetition` reward: a penalty for word n-grams that occur again.

use std::collections::BTreeSet;

/// −(1 − distinct / all) over the n-grams of lower-case words: 0 without repetition, towards −1 if one n-gram fills the
/// text; and the reason. A text of fewer than `n` words has 0. The penalty of Yeo et al. 2025 as open-r1 computes it.
pub(crate) fn score(text: &str, n: usize) -> (f64, String) {
    let text = text.to_lowercase();
    let words: Vec<&str> = text.split_whitespace().collect();
    let grams: Vec<&[&str]> = words.windows(n.max(1)).collect();
    let distinct: BTreeSet<&[&str]> = grams.iter().copied().collect();
    if grams.is_empty() {
        return (0.0, format!("fewer than {n} words"));
    }
    let repeated = grams.len() - distinct.len();
    let value = -(repeated as f64) / grams.len() as f64;
    (value, format!("{repeated} of {} {n}-grams occur again", grams.len()))
}
