//! Refuses regular expressions with exponential run time.
//!
//! The patterns of a tokenizer.json run in Oniguruma, which backtracks. Nested repetitions make
//! that exponential. They are refused by structure, along with back-references, recursion and
//! absent operators. No published tokenizer needs any of these.

/// Maximum length of a pattern in bytes.
const PATTERN_BYTES: usize = 16 << 10;
/// Maximum count in `{n,m}`.
const COUNT: u32 = 1000;
/// Maximum number of repetitions in a branch: each can raise the run time by one power.
const REPEATS_IN_BRANCH: usize = 6;

#[derive(Default)]
struct Group {
    /// Whether a branch of this group contains a repetition.
    repeats: bool,
    /// Repetitions in the current branch.
    in_branch: usize,
}

struct Reader<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    groups: Vec<Group>,
    /// Whether the last atom contains a repetition; None if a quantifier has nothing to repeat.
    atom_repeats: Option<bool>,
}

/// Checks one pattern; returns the problem.
pub(crate) fn check(pattern: &str) -> std::result::Result<(), String> {
    if pattern.len() > PATTERN_BYTES {
        return Err(format!("a pattern of {} bytes (limit {PATTERN_BYTES})", pattern.len()));
    }
    let mut reader = Reader {
        chars: pattern.chars().peekable(),
        groups: vec![Group::default()],
        atom_repeats: None,
    };
    reader.read().map_err(|reason| format!("{reason} in pattern `{pattern}`"))
}

impl Reader<'_> {
    fn read(&mut self) -> std::result::Result<(), &'static str> {
        while let Some(c) = self.chars.next() {
            match c {
                '\\' => self.escape()?,
                '[' => {
                    self.class()?;
                    self.atom_repeats = Some(false);
                }
                '(' => self.open()?,
                ')' => self.close()?,
                '|' => {
                    self.atom_repeats = None;
                    if let Some(group) = self.groups.last_mut() {
                        group.in_branch = 0;
                    }
                }
                '*' | '+' => self.quantifier(true)?,
                '?' => self.quantifier(false)?,
                '{' => self.count()?,
                _ => self.atom_repeats = Some(false),
            }
        }
        if self.groups.len() == 1 { Ok(()) } else { Err("unbalanced parentheses") }
    }

    fn escape(&mut self) -> std::result::Result<(), &'static str> {
        match self.chars.next() {
            Some('1'..='9' | 'k') => return Err("a back-reference"),
            Some('G') => return Err("an anchor at the last match"),
            Some('g') => return Err("a recursive call"),
            Some('p' | 'P' | 'x' | 'o' | 'h' | 'H') if self.chars.peek() == Some(&'{') => {
                while self.chars.next().is_some_and(|c| c != '}') {}
            }
            Some(_) => {}
            None => return Err("a trailing backslash"),
        }
        self.atom_repeats = Some(false);
        Ok(())
    }

    /// Reads a character class with its nested classes, after the opening bracket.
    fn class(&mut self) -> std::result::Result<(), &'static str> {
        let mut depth = 1usize;
        // A bracket right after the opening one (or its `^`) is an ordinary character.
        let mut first = true;
        while let Some(c) = self.chars.next() {
            match c {
                '\\' => {
                    self.chars.next();
                }
                '^' if first => continue,
                ']' if first => {}
                '[' => depth += 1,
                ']' => depth -= 1,
                _ => {}
            }
            first = false;
            if depth == 0 {
                return Ok(());
            }
        }
        Err("an open character class")
    }

    fn open(&mut self) -> std::result::Result<(), &'static str> {
        self.groups.push(Group::default());
        self.atom_repeats = None;
        if self.chars.peek() != Some(&'?') {
            return Ok(());
        }
        self.chars.next();
        match self.chars.next() {
            Some(':' | '=' | '!' | '>') => Ok(()),
            Some('<' | 'P' | '\'') => {
                if matches!(self.chars.peek(), Some('=' | '!')) {
                    // Look-behind.
                    self.chars.next();
                } else {
                    // A name. References and calls to it are refused.
                    while self.chars.next().is_some_and(|c| c != '>' && c != '\'') {}
                }
                Ok(())
            }
            Some('#') => {
                while self.chars.next().is_some_and(|c| c != ')') {}
                self.groups.pop();
                Ok(())
            }
            Some('a'..='z' | 'A'..='Z' | '-') => {
                // Options: `(?i:...)` opens a group, `(?i)` does not.
                for c in self.chars.by_ref() {
                    match c {
                        ':' => return Ok(()),
                        ')' => {
                            self.groups.pop();
                            return Ok(());
                        }
                        _ => {}
                    }
                }
                Err("unbalanced parentheses")
            }
            _ => Err("an absent operator or a condition"),
        }
    }

    fn close(&mut self) -> std::result::Result<(), &'static str> {
        if self.groups.len() < 2 {
            return Err("unbalanced parentheses");
        }
        let inner = self.groups.pop().unwrap_or_default();
        if let Some(outer) = self.groups.last_mut() {
            outer.repeats |= inner.repeats;
            outer.in_branch += inner.in_branch;
        }
        self.atom_repeats = Some(inner.repeats);
        Ok(())
    }

    fn quantifier(&mut self, repeats: bool) -> std::result::Result<(), &'static str> {
        let Some(nested) = self.atom_repeats else {
            return Err("a quantifier with nothing to repeat");
        };
        if repeats && nested {
            return Err("a repetition inside a repetition");
        }
        // A second `+` or `?` makes the first one possessive or lazy.
        if matches!(self.chars.peek(), Some('+' | '?')) {
            self.chars.next();
        }
        // A quantifier that follows directly would repeat this repetition.
        self.atom_repeats = Some(repeats || nested);
        if repeats && let Some(group) = self.groups.last_mut() {
            group.repeats = true;
            group.in_branch += 1;
            if group.in_branch > REPEATS_IN_BRANCH {
                return Err("too many repetitions in one branch");
            }
        }
        Ok(())
    }

    /// Reads `{n}`, `{n,}`, `{,m}` or `{n,m}`; anything else is an ordinary brace.
    fn count(&mut self) -> std::result::Result<(), &'static str> {
        let mut ahead = self.chars.clone();
        let mut text = String::new();
        loop {
            match ahead.next() {
                Some('}') => break,
                Some(c) if c.is_ascii_digit() || c == ',' => text.push(c),
                _ => {
                    self.atom_repeats = Some(false);
                    return Ok(());
                }
            }
        }
        self.chars = ahead;
        let (low, high) = text.split_once(',').unwrap_or((&text, &text));
        let number = |digits: &str, empty: u32| match digits {
            "" => Some(empty),
            _ => digits.parse().ok().filter(|n| *n <= COUNT),
        };
        let (Some(_), Some(high)) = (number(low, 0), number(high, COUNT)) else {
            return Err("a count that is too large");
        };
        self.quantifier(high > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn the_patterns_of_published_tokenizers_pass() {
        for pattern in [
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r#"[!"\#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#,
            r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}&&[^\p{Han}]]*[\p{Ll}&&[^\p{Han}]]+(?i:'s|'t)?",
            r" ?[^(\s|[.,!?…。，、।۔،])]+",
            " {2,}",
            "[一-龥぀-ゟ゠-ヿ]+",
            r"(?<=\p{L})x++|y*?",
        ] {
            assert_eq!(check(pattern), Ok(()), "{pattern}");
        }
    }

    #[test]
    fn patterns_that_can_run_exponentially_are_refused() {
        for (pattern, reason) in [
            ("(a+)+b", "a repetition inside a repetition"),
            ("(?:a*)*", "a repetition inside a repetition"),
            ("((a|b{2,5})x)*", "a repetition inside a repetition"),
            ("(?i:a+){2,9}", "a repetition inside a repetition"),
            ("a+{3}", "a repetition inside a repetition"),
            (r"(a)\1", "a back-reference"),
            (r"(?<n>a)\k<n>", "a back-reference"),
            (r"(?<n>a\g<n>)", "a recursive call"),
            (r"\Ga", "an anchor at the last match"),
            ("(?~abc)", "an absent operator or a condition"),
            ("a{1,100000}", "a count that is too large"),
            ("a*a*a*a*a*a*a*a*b", "too many repetitions in one branch"),
            ("(a", "unbalanced parentheses"),
            ("a)", "unbalanced parentheses"),
            ("[a", "an open character class"),
        ] {
            let error = check(pattern).expect_err(pattern);
            assert!(error.starts_with(reason), "{pattern}: {error}");
        }
    }
}
