//! Words of a text as IFEval counts them: runs of word characters, and the tokens of the Penn Treebank for words in capitals.

use std::sync::LazyLock;

use regex::Regex;

use super::sentences::sentences;
use crate::python_text::is_space;

/// Number of runs of letters, digits and underscores.
pub(super) fn count(text: &str) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.split(|c| !is_word(c)).filter(|word| !word.is_empty()).count()
}

/// Number of tokens in capitals, with hyphens inside words. A clitic is a token of its own: `DON'T` is `DO` and `N'T`.
pub(super) fn count_capitals(text: &str) -> usize {
    let tokens = |sentence: &String| {
        tokenized(sentence).split(is_space).filter(|token| is_upper(token)).count()
    };
    sentences(text).iter().map(tokens).sum()
}

/// Python's `str.isupper`.
pub(super) fn is_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(|c| c.is_lowercase() || is_title(c))
}

/// Python's `str.islower`.
pub(super) fn is_lower(text: &str) -> bool {
    text.chars().any(char::is_lowercase) && !text.chars().any(|c| c.is_uppercase() || is_title(c))
}

/// Whether a character is one of the few digraphs with a title case, such as `ǅ`.
fn is_title(c: char) -> bool {
    let changes = |text: String| text.chars().ne([c]);
    !c.is_uppercase()
        && !c.is_lowercase()
        && changes(c.to_lowercase().to_string())
        && changes(c.to_uppercase().to_string())
}

/// Patterns and replacements in order: marks become tokens of their own. The conventions are those of the Penn Treebank with the
/// quotes and clitics of NLTK's tokenizer.
static STEPS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    let before_clitics = [
        (r"([«“‘„]|`+)", " $1 "),
        (r#"^""#, "``"),
        ("``", " `` "),
        (r#"([ (\[{<])("|'{2})"#, "$1 `` "),
    ];
    let after_clitics = [
        (r#"([^.])(\.)([\])}>"'»”’ ]*)\s*$"#, "$1 $2 $3 "),
        (r"([:,])([^\d])", " $1 $2"),
        (r"([:,])$", " $1 "),
        (r"(\.{2,}|[;@#$%&]|[\u{2012}-\u{2015}]|[?!*])", " $1 "),
        (r"([^'])' ", "$1 ' "),
        (r"([\]\[(){}<>])", " $1 "),
        ("--", " -- "),
        (r"([»”’])", " $1 "),
        ("''|\"", " '' "),
        (r"\s+", " "),
        (r"([^' ])('[sS]|'[mM]|'[dD]|') ", "$1 $2 "),
        (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", "$1 $2 "),
        (r"(?i)\b(can)(not)\b", " $1 $2 "),
        (r"(?i)\b(d)('ye)\b", " $1 $2 "),
        (r"(?i)\b(gim|lem)(me)\b", " $1 $2 "),
        (r"(?i)\b(gon)(na)\b", " $1 $2 "),
        (r"(?i)\b(got)(ta)\b", " $1 $2 "),
        (r"(?i)\b(more)('n)\b", " $1 $2 "),
        (r"(?i)\b(wan)(na)\s", " $1 $2 "),
        (r"(?i) ('t)(is|was)\b", " $1 $2 "),
    ];
    let compiled = before_clitics.into_iter().chain(after_clitics);
    compiled.map(|(pattern, by)| (Regex::new(pattern).expect("a valid pattern"), by)).collect()
});

/// Number of steps before quotes that open a word.
const BEFORE_OPENING_QUOTES: usize = 4;

/// A sentence with white space between its tokens.
fn tokenized(sentence: &str) -> String {
    let mut text = sentence.to_owned();
    for (idx, (pattern, by)) in STEPS.iter().enumerate() {
        if idx == BEFORE_OPENING_QUOTES {
            text = opening_quotes(&text);
        }
        if pattern.as_str().starts_with("([»”’])") {
            text = format!(" {text} ");
        }
        text = pattern.replace_all(&text, *by).into_owned();
    }
    text
}

/// Separates a quote before a word from it, unless the word is a clitic.
fn opening_quotes(text: &str) -> String {
    const CLITICS: [&str; 8] = ["re", "ve", "ll", "m", "t", "s", "d", "n"];
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut separated = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        separated.push(c);
        if c != '\'' || text[..at].ends_with(is_word) {
            continue;
        }
        let rest = &text[at + 1..];
        let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
        if !word.is_empty() && !CLITICS.contains(&word.to_lowercase().as_str()) {
            separated.push(' ');
        }
    }
    separated
}

#[cfg(test)]
mod tests {
    use super::{count, count_capitals, is_lower, is_upper};

    #[test]
    fn words_and_capitals() {
        assert_eq!(count("It's a well-known fact: 3.5 _x_"), 9);
        for (text, n) in [
            ("HELLO-WORLD isn't DON'T (ABC) U.S. NASA's", 6),
            ("I am A. CANNOT GO, OK? \"YES\"", 7),
            ("'TWAS a 'QUOTE' R&D", 4),
            ("none at all", 0),
        ] {
            assert_eq!(count_capitals(text), n, "{text}");
        }
    }

    #[test]
    fn case_is_that_of_python() {
        assert!(is_upper("ABC 1!") && !is_upper("123") && !is_upper("AǅB") && !is_upper("Ab"));
        assert!(is_lower("abc 1!") && !is_lower("") && !is_lower("aǅb"));
    }
}
