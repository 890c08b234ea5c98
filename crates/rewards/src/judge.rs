//! The `judge` reward: the score in the reply of a language model.

use std::sync::LazyLock;

use recipe::JudgeKeys;
use regex::Regex;

/// A number; `8/10` and `8 out of 10` are 8.
static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(-?[0-9]+(?:\.[0-9]+)?)(?:\s*(?:/|out of)\s*[0-9]+(?:\.[0-9]+)?)?").ok()
});

/// The score in a reply: the first group of the pattern, or the last number. No value without one, or with one outside of
/// the range.
pub(crate) fn score(
    reply: &str,
    keys: &JudgeKeys,
    pattern: Option<&Regex>,
) -> (Option<f64>, String) {
    let group = match (pattern, NUMBER.as_ref()) {
        (Some(pattern), _) => pattern.captures(reply).and_then(|captures| captures.get(1)),
        (None, Some(number)) => {
            number.captures_iter(reply).last().and_then(|captures| captures.get(1))
        }
        (None, None) => None,
    };
    let value = group.and_then(|group| group.as_str().trim().parse::<f64>().ok());
    let Some(value) = value else { return (None, format!("no score in {}", shown(reply))) };
    let [low, high] = keys.range;
    if !(low..=high).contains(&value) {
        return (None, format!("the score {value} is not between {low} and {high}"));
    }
    (Some(value), format!("the judge wrote {}", shown(reply)))
}

/// The reply on one line, shortened.
fn shown(reply: &str) -> String {
    let line = reply.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = line.chars().take(60).collect();
    if short.len() < line.len() { format!("`{short}…`") } else { format!("`{short}`") }
}
