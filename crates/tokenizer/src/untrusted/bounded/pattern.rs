//! A regular expression whose steps on a text are limited.
//!
//! Oniguruma backtracks. Its limit of steps holds for one starting position only, so that `[a-z]*[a-z]*[0-9]` may take the
//! limit at each letter of a text.

use std::time::Duration;

use onig::{MatchParam, Regex, Region, SearchOptions};
use tokenizers::pattern::Pattern;
use tokenizers::{Offsets, Result};

use super::{exceeded, shown, spend_time};

/// Steps of one match, for each byte of the text and in any case. Published patterns take a few per byte.
const STEPS_PER_BYTE: usize = 64;
const FREE_STEPS: usize = 1000;
/// Steps of one match on any text: Oniguruma's own limit.
const STEPS: usize = 10_000_000;
/// Steps between two looks at the clock, unless a single match takes more.
const STEPS_PER_LOOK: usize = 20_000_000;
/// Starting positions until the first look at the clock. A step may read the whole rest of the text.
const POSITIONS: usize = 16;
/// Time between two looks at the clock from which their distance shrinks.
const LONG: Duration = Duration::from_millis(5);

/// A pattern of a tokenizer.json.
#[derive(Debug)]
pub(super) struct BoundedRegex {
    source: String,
    regex: Regex,
}

impl BoundedRegex {
    pub(super) fn new(source: &str) -> std::result::Result<Self, String> {
        let regex = Regex::new(source)
            .map_err(|e| format!("pattern {} is not valid: {}", shown(source), e.description()))?;
        Ok(Self { source: source.to_owned(), regex })
    }

    pub(super) fn name(&self) -> String {
        format!("pattern {}", shown(&self.source))
    }

    /// The first match that starts at `from` or later.
    fn search(
        &self,
        text: &str,
        from: usize,
        region: &mut Region,
    ) -> std::result::Result<Option<(usize, usize)>, String> {
        let steps = (text.len() * STEPS_PER_BYTE + FREE_STEPS).min(STEPS);
        let largest = (STEPS_PER_LOOK / steps).max(POSITIONS);
        let mut window = POSITIONS;
        let mut start = from;
        loop {
            let mut end = start.saturating_add(window).min(text.len());
            while !text.is_char_boundary(end) {
                end += 1;
            }
            let took = spend_time(|| self.name())?;
            window = if took > LONG { 1 } else { (window * 2).min(largest) };
            let mut param = MatchParam::default();
            param.set_retry_limit_in_match(steps as u32);
            region.clear();
            let found = self.regex.search_with_param(
                text,
                start,
                end,
                SearchOptions::SEARCH_OPTION_NONE,
                Some(region),
                param,
            );
            match found {
                Ok(Some(_)) => return Ok(region.pos(0)),
                Ok(None) if end == text.len() => return Ok(None),
                Ok(None) => start = end,
                Err(error) => {
                    let name = self.name();
                    let cause = match error.description() {
                        limit if limit.contains("limit") => format!("more than {steps} steps"),
                        other => other.to_owned(),
                    };
                    return Err(exceeded(format!(
                        "{name} backtracks too far: {cause} for one match near byte {start}"
                    )));
                }
            }
        }
    }
}

impl Pattern for &BoundedRegex {
    /// The same splits as those of the library's `SysRegex`.
    fn find_matches(&self, inside: &str) -> Result<Vec<(Offsets, bool)>> {
        if inside.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        let mut splits = Vec::new();
        let mut region = Region::new();
        let (mut at, mut covered, mut last_match) = (0, 0, None);
        while at <= inside.len() {
            let Some((start, end)) = self.search(inside, at, &mut region)? else { break };
            // An empty match directly after another match counts for nothing.
            if start == end && last_match == Some(end) {
                let next = inside.get(at..).and_then(|rest| rest.chars().next());
                at += next.map_or(1, char::len_utf8);
                continue;
            }
            (at, last_match) = (end, Some(end));
            if covered != start {
                splits.push(((covered, start), false));
            }
            splits.push(((start, end), true));
            covered = end;
        }
        if covered != inside.len() {
            splits.push(((covered, inside.len()), false));
        }
        Ok(splits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::pattern::Pattern;
    use tokenizers::utils::SysRegex;

    use super::BoundedRegex;
    use crate::untrusted::bounded::{with_limits, within_budget};

    const PATTERNS: [&str; 8] = [
        r"'s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"\s*[\r\n]+|\s+(?!\S)|\s+",
        r"(?<=\p{L})x++|y*?",
        "a*",
        r"^a|b$|\bab",
        " {2,}",
        "(?:)",
        "[一-龥]+",
    ];

    proptest! {
        #[test]
        fn splits_are_those_of_the_library(text in "[ab xy1é一\\n]{0,60}", scale in 1usize..80) {
            let text = text.repeat(scale);
            for pattern in PATTERNS {
                let expected = (&SysRegex::new(pattern).unwrap()).find_matches(&text).unwrap();
                let bounded = BoundedRegex::new(pattern).unwrap();
                prop_assert_eq!((&bounded).find_matches(&text).unwrap(), expected, "{}", pattern);
            }
        }
    }

    #[test]
    fn a_pattern_that_backtracks_is_named() {
        for (pattern, text) in [
            ("[a-z]*[a-z]*[0-9]", "a".repeat(4000) + "!1"),
            ("(?:a|a)*b", "a".repeat(4000)),
            ("(?:a|aa)+b", "a".repeat(100)),
            ("(?=.*.*.*!)x", "a".repeat(1000)),
        ] {
            let regex = BoundedRegex::new(pattern).unwrap();
            let outcome = within_budget(&text, || (&regex).find_matches(&text).is_ok());
            let reason = outcome.expect_err(pattern);
            assert!(reason.starts_with(&format!("pattern `{pattern}`")), "{reason}");
        }
    }

    #[test]
    fn a_pattern_that_takes_its_steps_again_and_again_runs_out_of_time() {
        // Each letter is a match, after a vain search through 4 million bytes.
        let text = "a".repeat(2 << 20);
        let regex = BoundedRegex::new("a*[0-9]|a").unwrap();
        let reason = with_limits(100, || (&regex).find_matches(&text).is_ok()).unwrap_err();
        assert!(reason.contains("too long"), "{reason}");
    }
}
