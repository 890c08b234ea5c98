//! Regular expressions of task files: Python's `findall` and `sub` with a linear-time engine.

use regex::{NoExpand, Regex, RegexBuilder};

/// Maximum size of a compiled pattern.
const COMPILED_BYTES: usize = 1 << 21;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    regex: Regex,
}

/// One match as Python's `findall` returns it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found<'t> {
    /// The whole match, or the only group.
    One(&'t str),
    /// The groups of a pattern with several; empty where a group did not take part.
    Groups(Vec<&'t str>),
}

impl Pattern {
    /// Compiles a pattern; the error is the compiler's explanation on one line.
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        let regex = RegexBuilder::new(pattern).size_limit(COMPILED_BYTES).build();
        regex.map(|regex| Self { regex }).map_err(|error| {
            let text = error.to_string();
            let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            format!("not a regular expression: {}: `{pattern}`", line.trim_start_matches("error: "))
        })
    }

    /// `re.findall`.
    pub(crate) fn find_all<'t>(&self, text: &'t str) -> Vec<Found<'t>> {
        let n_groups = self.regex.captures_len() - 1;
        let group = |captures: &regex::Captures<'t>, idx: usize| {
            captures.get(idx).map_or("", |group| group.as_str())
        };
        let found = |captures: regex::Captures<'t>| match n_groups {
            0 | 1 => Found::One(group(&captures, n_groups)),
            _ => Found::Groups((1..=n_groups).map(|idx| group(&captures, idx)).collect()),
        };
        self.regex.captures_iter(text).map(found).collect()
    }

    /// A text without the matches.
    pub(crate) fn removed(&self, text: &str) -> String {
        self.regex.replace_all(text, NoExpand("")).into_owned()
    }

    /// `re.sub` with plain text; `None` if the result would have more than `limit` bytes.
    pub(crate) fn replace(&self, text: &str, by: &str, limit: usize) -> Option<String> {
        let n_added = self.regex.find_iter(text).count().checked_mul(by.len())?;
        let kept: usize = self.regex.find_iter(text).map(|found| found.len()).sum();
        let is_short = (text.len() - kept).checked_add(n_added)? <= limit;
        is_short.then(|| self.regex.replace_all(text, NoExpand(by)).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, Pattern};

    #[test]
    fn matches_are_those_of_findall() {
        let of = |pattern: &str, text: &'static str| Pattern::new(pattern).unwrap().find_all(text);
        assert_eq!(of("[0-9]+", "a1b22"), [Found::One("1"), Found::One("22")]);
        assert_eq!(of("#### ([0-9,]+)", "#### 5,0 #### 7"), [Found::One("5,0"), Found::One("7")]);
        assert_eq!(of("(x)|(y)", "y"), [Found::Groups(vec!["", "y"])]);
    }

    #[test]
    fn a_replacement_is_plain_text() {
        let dollar = Pattern::new(r"\$").unwrap();
        assert_eq!(dollar.replace("$5 $6", "$0", 7).as_deref(), Some("$05 $06"));
        assert_eq!(dollar.replace("$5 $6", "$0", 6), None);
        let error = Pattern::new("a(?=b)").unwrap_err();
        assert!(error.contains("look-around"), "{error}");
    }
}
