//! A regular expression whose steps on a text are limited.
//!
//! Oniguruma backtracks. Its limit of steps holds for one starting position and counts a repetition that reads the whole text
//! as one step, so a search may still take the cube of a text's length. A search cannot be interrupted: the watchdog ends the
//! process, with the pattern that is noted here.

use std::sync::Arc;

use onig::{MatchParam, Regex, Region, SearchOptions};
use tokenizers::pattern::Pattern;
use tokenizers::{Offsets, Result};

use super::{WATCHED_BYTES, exceeded, shown, spend_time};

/// Steps of one match, for each byte of the text and in any case. Published patterns take a few per byte.
const STEPS_PER_BYTE: usize = 64;
const FREE_STEPS: usize = 1000;
/// Steps of one match on any text: Oniguruma's own limit.
const STEPS: usize = 10_000_000;

/// A pattern of a tokenizer.json.
#[derive(Debug)]
pub(super) struct BoundedRegex {
    /// The pattern as an error shows it.
    name: Arc<str>,
    regex: Regex,
}

impl BoundedRegex {
    pub(super) fn new(source: &str) -> std::result::Result<Self, String> {
        let regex = Regex::new(source)
            .map_err(|e| format!("pattern {} is not valid: {}", shown(source), e.description()))?;
        Ok(Self { name: format!("pattern {}", shown(source)).into(), regex })
    }

    pub(super) fn name(&self) -> String {
        self.name.to_string()
    }

    /// The first match that starts at `from` or later.
    fn search(
        &self,
        text: &str,
        from: usize,
        region: &mut Region,
    ) -> std::result::Result<Option<(usize, usize)>, String> {
        spend_time(|| self.name())?;
        let steps = (text.len() * STEPS_PER_BYTE + FREE_STEPS).min(STEPS);
        let mut param = MatchParam::default();
        param.set_retry_limit_in_match(steps as u32);
        region.clear();
        // A smaller range would not only end the search earlier but also cut matches.
        let (range, options) = (text.len(), SearchOptions::SEARCH_OPTION_NONE);
        let found = self.regex.search_with_param(text, from, range, options, Some(region), param);
        found.map(|start| start.and_then(|_| region.pos(0))).map_err(|error| {
            let cause = match error.description() {
                limit if limit.contains("limit") => format!("more than {steps} steps"),
                other => other.to_owned(),
            };
            let name = &self.name;
            exceeded(format!("{name} backtracks too far: {cause} for one match after byte {from}"))
        })
    }
}

impl Pattern for &BoundedRegex {
    /// The same splits as those of the library's `SysRegex`.
    fn find_matches(&self, inside: &str) -> Result<Vec<(Offsets, bool)>> {
        if inside.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        if inside.len() >= WATCHED_BYTES {
            fsio::watchdog::note_step(&self.name);
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

    const PATTERNS: [&str; 10] = [
        r"'s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"\s*[\r\n]+|\s+(?!\S)|\s+",
        r"(?<=\p{L})x++|y*?",
        "a*",
        r"^a|b$|\bab",
        " {2,}",
        "(?:)",
        "[a-z]*[0-9]",
        "[a-z]*[a-z]*1",
        "[一-龥]+",
    ];

    proptest! {
        #[test]
        fn splits_are_those_of_the_library(
            runs in prop::collection::vec(("[ab xy1é一\\n]", 1usize..100), 0..20),
        ) {
            let text: String = runs.iter().map(|(part, n)| part.repeat(*n)).collect();
            for pattern in PATTERNS {
                let expected = (&SysRegex::new(pattern).unwrap()).find_matches(&text).unwrap();
                let bounded = BoundedRegex::new(pattern).unwrap();
                prop_assert_eq!((&bounded).find_matches(&text).unwrap(), expected, "{}", pattern);
            }
        }
    }

    #[test]
    fn a_pattern_that_backtracks_is_named() {
        for pattern in ["(?:a|a)*b", "(?:a|aa)+b", "(?:a?){30}b|(?:a|aa)+b"] {
            let text = format!("{}!b", "a".repeat(100));
            let regex = BoundedRegex::new(pattern).unwrap();
            let outcome = within_budget(&text, || (&regex).find_matches(&text).is_ok());
            let reason = outcome.expect_err(pattern);
            assert!(reason.starts_with(&format!("pattern `{pattern}` backtracks")), "{reason}");
        }
    }

    #[test]
    fn a_pattern_that_takes_its_steps_again_and_again_runs_out_of_time() {
        // Each letter is a match, after a vain search through 4 million bytes.
        let text = "a".repeat(2 << 20);
        let regex = BoundedRegex::new("a*[0-9]|a").unwrap();
        let reason = with_limits(100, || (&regex).find_matches(&text).is_ok()).unwrap_err();
        assert!(reason.contains("takes too long"), "{reason}");
    }
}
