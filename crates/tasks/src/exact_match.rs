//! The metric `exact_match`: equality of texts after some parts are removed.

use serde::Deserialize;

use crate::pattern::Pattern;

/// Keys of `[exact_match]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExactMatchKeys {
    #[serde(default)]
    ignore_case: bool,
    #[serde(default)]
    ignore_punctuation: bool,
    #[serde(default)]
    ignore_numbers: bool,
    #[serde(default)]
    ignore: Vec<String>,
}

/// The compiled metric.
#[derive(Debug)]
pub(crate) struct ExactMatch {
    keys: ExactMatchKeys,
    ignore: Vec<Pattern>,
}

impl ExactMatch {
    pub(crate) fn new(keys: ExactMatchKeys) -> Result<Self, String> {
        let ignore = keys.ignore.iter().map(|pattern| Pattern::new(pattern));
        Ok(Self { ignore: ignore.collect::<Result<_, _>>()?, keys })
    }

    /// Whether an answer equals one of the right ones.
    pub(crate) fn matches(&self, answer: &str, right: &[String]) -> bool {
        let answer = self.kept(answer);
        right.iter().any(|right| self.kept(right) == answer)
    }

    fn kept(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for pattern in &self.ignore {
            text = pattern.removed(&text);
        }
        if self.keys.ignore_case {
            text = text.to_lowercase();
        }
        if self.keys.ignore_punctuation {
            text.retain(|c| !c.is_ascii_punctuation());
        }
        if self.keys.ignore_numbers {
            text.retain(|c| !c.is_ascii_digit());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{ExactMatch, ExactMatchKeys};

    #[test]
    fn parts_are_removed_from_both_sides() {
        let ignore = [",", r"\$", r"(?s).*#### ", r"\.$"].map(str::to_owned).to_vec();
        let keys = ExactMatchKeys { ignore_case: true, ignore, ..ExactMatchKeys::default() };
        let metric = ExactMatch::new(keys).unwrap();
        let right = ["3 and 2.\n#### 5,000".to_owned()];
        for (answer, expected) in
            [("5000", true), ("$5,000.", true), ("5000.0", false), ("[invalid]", false)]
        {
            assert_eq!(metric.matches(answer, &right), expected, "{answer}");
        }
    }

    #[test]
    fn case_punctuation_and_numbers_are_options() {
        let of = |punctuation, numbers| {
            ExactMatch::new(ExactMatchKeys {
                ignore_punctuation: punctuation,
                ignore_numbers: numbers,
                ..ExactMatchKeys::default()
            })
            .unwrap()
        };
        let right = ["ab".to_owned(), "c".to_owned()];
        assert!(of(true, true).matches("a-b7!", &right));
        assert!(!of(true, false).matches("a-b7!", &right));
        assert!(of(false, false).matches("c", &right));
        assert!(!of(false, false).matches("C", &right));
    }
}
