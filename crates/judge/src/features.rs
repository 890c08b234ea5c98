//! A text as the set of things that stand in it: words, or runs of letters.
//!
//! It deliberately knows no language: a word is letters, digits and apostrophes in a row, in small letters.

use std::collections::BTreeSet;

/// The longest run of letters that counts.
const LONGEST_RUN: usize = 3;

/// What a text is taken apart into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Features {
    /// Its words, and `!` and `?`: for languages that put spaces between words.
    Words,
    /// Its runs of one to three letters, spaces among them: for all others.
    Letters,
}

impl Features {
    /// Each feature once, in alphabetical order.
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

/// The words of a text in order, and the marks that say how it is meant.
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
    fn a_text_is_its_words_or_its_letters() {
        let of = |features: Features, text: &str| {
            features.of(text).into_iter().collect::<Vec<_>>().join("|")
        };
        assert_eq!(of(Features::Words, "Don't, don't STOP!!"), "!|don't|stop");
        assert_eq!(of(Features::Letters, "짱짱"), " | 짱| 짱짱|짱|짱 |짱짱|짱짱 ");
    }
}
