//! Python's notion of white space and of upper case, where it decides about prompts and counts.

/// Whether Python's `str.isspace` is true for a character: Unicode white space and the four separators U+001C to U+001F.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.strip()`.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// The text without white space at its end, as Python's `str.rstrip()` defines it.
pub fn trim_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// Number of pieces of `re.split(r"\s+", text)`. White space at the start or end adds an empty piece.
pub(crate) fn n_words(text: &str) -> usize {
    let mut n_runs = 0;
    let mut in_run = false;
    for c in text.chars() {
        let space = is_space(c);
        n_runs += usize::from(space && !in_run);
        in_run = space;
    }
    n_runs + 1
}

/// `str.capitalize()`: the first character in upper case, all others in lower case.
pub(crate) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        // Lowered as one text, because the form of a sigma depends on its place in the word.
        Some(first) => {
            let lower = text.to_lowercase();
            let n_first: usize = first.to_lowercase().map(char::len_utf8).sum();
            first.to_uppercase().chain(lower.get(n_first..).unwrap_or_default().chars()).collect()
        }
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_that_of_python() {
        assert_eq!(trim("\u{1f}\u{3000} a b \n\u{1c}"), "a b");
        assert_eq!(trim_end(" a\u{200b}"), " a\u{200b}");
    }

    #[test]
    fn words_are_counted_like_a_split() {
        let cases = [("", 1), ("a", 1), (" a", 2), ("a b\n\nc", 3), (" The eel . ", 5)];
        for (text, n) in cases {
            assert_eq!(n_words(text), n, "{text:?}");
        }
    }

    #[test]
    fn capitals_are_lowered_after_the_first() {
        assert_eq!(capitalize("the man Bob"), "The man bob");
        assert_eq!(capitalize("élan VITAL"), "Élan vital");
        assert_eq!(capitalize(""), "");
    }
}
