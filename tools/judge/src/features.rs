//! Text features: the set of words, or of character n-grams, that occur in a text.
//!
//! Independent of the language: a word is a run of letters, digits and apostrophes, in lower case.

use std::collections::BTreeSet;

/// Longest character n-gram.
const LONGEST_RUN: usize = 3;

/// The kind of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Features {
    /// Words, `!` and `?`: for languages with spaces between words.
    Words,
    /// Character n-grams of one to three, spaces included: for all other languages.
    Letters,
}

impl Features {
    /// The distinct features of a text, sorted.
    pub fn of(self, text: &str) -> BTreeSet<String> {
        let text = text.to_lowercase();
        match self {
            Self::Words => words(&text).into_iter().map(str::to_owned).collect(),
            Self::Letters => {
                let spaced = format!(" {} ", text.trim());
                let letters: Vec<char> = spaced.chars().collect();
                let runs = (1..=LONGEST_RUN).flat_map(|n| letters.windows(n));
                runs.map(|run| run.iter().collect()).collect()
            }
        }
    }
}

/// The words of a text in order, with `!` and `?`.
fn words(text: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '\'';
    let mut found = Vec::new();
    for part in text.split_whitespace() {
        found.extend(part.split(|c| !is_word(c)).filter(|word| !word.is_empty()));
        found.extend(["!", "?"].into_iter().filter(|mark| part.contains(mark)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_words_or_character_n_grams() {
        let of = |features: Features, text: &str| {
            features.of(text).into_iter().collect::<Vec<_>>().join("|")
        };
        assert_eq!(of(Features::Words, "Don't, don't STOP!!"), "!|don't|stop");
        assert_eq!(of(Features::Letters, "짱짱"), " | 짱| 짱짱|짱|짱 |짱짱|짱짱 ");
    }
}
