//! PEFT's rules for matching names of modules: suffixes, regular expressions, indices of blocks.

use regex::Regex;

use crate::adapter_error::{AdapterError, AdapterResult};
use crate::adapter_targets::Targets;

/// Whether `target` is the full name or its last parts.
pub(crate) fn is_name_suffix(name: &str, target: &str) -> bool {
    name.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// A regular expression that must match the full text, as Python's `re.fullmatch`; `key` is its setting.
pub(crate) fn full_match(key: &'static str, pattern: &str) -> AdapterResult<Regex> {
    compile(key, pattern, &format!(r"\A(?:{pattern})\z"))
}

fn compile(key: &'static str, pattern: &str, whole: &str) -> AdapterResult<Regex> {
    let wrong = |error: regex::Error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim().to_owned();
        AdapterError::Pattern { key, pattern: pattern.to_owned(), reason }
    };
    // Compiled alone first, so that an unbalanced bracket does not pair with the added ones.
    Regex::new(pattern).map_err(wrong)?;
    Regex::new(whole).map_err(wrong)
}

/// Whether a pattern has operators, so that it needs the engine of regular expressions.
pub(crate) fn has_operators(pattern: &str) -> bool {
    Plain::parse(pattern).is_none()
}

/// A pattern without operators, as adapters with a rank for each layer have them by the thousand. Such patterns are not
/// compiled, which takes milliseconds each.
struct Plain {
    /// `None` matches any character: an unescaped dot.
    characters: Vec<Option<char>>,
}

impl Plain {
    /// `None` if the pattern has operators.
    fn parse(pattern: &str) -> Option<Self> {
        let mut characters = Vec::new();
        let mut rest = pattern.chars();
        while let Some(character) = rest.next() {
            characters.push(match character {
                '.' => None,
                '\\' if rest.next() == Some('.') => Some('.'),
                c if c.is_ascii_alphanumeric() || c == '_' || c == '-' => Some(c),
                _ => return None,
            });
        }
        Some(Self { characters })
    }

    /// Whether the pattern matches the full name or its last parts.
    fn matches(&self, name: &str) -> bool {
        let mut rest = name.chars();
        let fits = self.characters.iter().rev().all(|expected| {
            rest.next_back().is_some_and(|c| expected.map_or(c != '\n', |expected| expected == c))
        });
        fits && rest.next_back().is_none_or(|before| before == '.')
    }
}

/// Matches module names against targets or exclusions.
pub(crate) enum Matcher<'a> {
    Names(&'a [String]),
    Pattern(Box<Regex>),
    /// No name: what is meant is known elsewhere.
    None,
}

impl<'a> Matcher<'a> {
    pub(crate) fn new(key: &'static str, targets: &'a Targets) -> AdapterResult<Self> {
        Ok(match targets {
            Targets::Names(names) => Matcher::Names(names),
            Targets::Pattern(pattern) => Matcher::Pattern(Box::new(full_match(key, pattern)?)),
            Targets::AllLinear | Targets::FamilyDefault => Matcher::None,
        })
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Names(targets) => targets.iter().any(|target| is_name_suffix(name, target)),
            Self::Pattern(regex) => regex.is_match(name),
            Self::None => false,
        }
    }

    /// Whether a target is the full name.
    pub(crate) fn names_exactly(&self, name: &str) -> bool {
        matches!(self, Self::Names(targets) if targets.iter().any(|target| target == name))
    }
}

/// Values by pattern, as `rank_pattern` and `alpha_pattern` have them.
pub(crate) struct ByPattern<T> {
    entries: Vec<(LastParts, T)>,
}

/// A pattern of a name's last parts: `re.match(rf"(.*\.)?({pattern})$", name)` of PEFT.
enum LastParts {
    Plain(Plain),
    Regex(Regex),
}

impl LastParts {
    fn new(key: &'static str, pattern: &str) -> AdapterResult<Self> {
        match Plain::parse(pattern) {
            Some(plain) => Ok(Self::Plain(plain)),
            None => {
                let whole = format!(r"\A(?:.*\.)?(?:{pattern})\z");
                Ok(Self::Regex(compile(key, pattern, &whole)?))
            }
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Plain(plain) => plain.matches(name),
            Self::Regex(regex) => regex.is_match(name),
        }
    }
}

impl<T: Copy> ByPattern<T> {
    pub(crate) fn new(key: &'static str, patterns: &[(String, T)]) -> AdapterResult<Self> {
        let entry = |(pattern, value): &(String, T)| Ok((LastParts::new(key, pattern)?, *value));
        Ok(Self { entries: patterns.iter().map(entry).collect::<AdapterResult<_>>()? })
    }

    /// The value of the first pattern that matches the name.
    pub(crate) fn get(&self, name: &str) -> Option<T> {
        let matching = |(pattern, _): &&(LastParts, T)| pattern.matches(name);
        self.entries.iter().find(matching).map(|(_, value)| *value)
    }

    /// The index of the first pattern that matches none of the names.
    pub(crate) fn unused<'n>(&self, names: impl Iterator<Item = &'n str> + Clone) -> Option<usize> {
        self.entries
            .iter()
            .position(|(pattern, _)| !names.clone().any(|name| pattern.matches(name)))
    }
}

/// Finds the index of a module's block.
pub(crate) struct BlockIndex {
    /// One for each of `layers_pattern`.
    lists: Vec<Regex>,
}

impl BlockIndex {
    pub(crate) fn new(patterns: &[String]) -> AdapterResult<Self> {
        let list = |pattern: &String| {
            let whole = format!(r"\A.*\.(?:{pattern})\.([0-9]+)\.");
            compile("layers_pattern", pattern, &whole)
        };
        let any = || compile("layers_pattern", "", r"\A.*\.[^.]*\.([0-9]+)\.");
        let lists = if patterns.is_empty() {
            vec![any()?]
        } else {
            patterns.iter().map(list).collect::<AdapterResult<_>>()?
        };
        Ok(Self { lists })
    }

    /// The index in the last list of the name that a pattern matches; the first such pattern counts.
    pub(crate) fn of(&self, name: &str) -> Option<usize> {
        let captures = self.lists.iter().find_map(|list| list.captures(name))?;
        captures.get(captures.len() - 1)?.as_str().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::{BlockIndex, ByPattern, Plain, full_match, is_name_suffix};

    #[test]
    fn names_match_whole_parts_only() {
        assert!(is_name_suffix("model.layers.0.self_attn.q_proj", "q_proj"));
        assert!(is_name_suffix("model.layers.0.self_attn.q_proj", "self_attn.q_proj"));
        assert!(is_name_suffix("lm_head", "lm_head"));
        assert!(!is_name_suffix("model.layers.0.self_attn.q_proj", "proj"));
        assert!(!is_name_suffix("model.layers.10", "0"));
    }

    #[test]
    fn patterns_match_whole_names_only() {
        let match_of = |pattern| full_match("target_modules", pattern);
        let regex = match_of(r".*layers\.1\..*(q_proj|o_proj)").expect("a pattern");
        assert!(regex.is_match("model.layers.1.self_attn.q_proj"));
        assert!(!regex.is_match("model.layers.1.self_attn.q_proj.lora_A"));
        // The alternatives are grouped.
        assert!(!match_of("a|b").expect("a pattern").is_match("ab"));
        for wrong in ["(", "a)(?:b", r"(?=x)", r"(a)\1"] {
            assert!(match_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_belong_to_the_first_pattern_that_matches_last_parts() {
        let patterns = [("k_proj", 1), (r"layers\.1\.self_attn\..*", 2), ("proj", 3)]
            .map(|(p, r)| (p.to_owned(), r));
        let ranks = ByPattern::new("rank_pattern", &patterns).expect("patterns");
        assert_eq!(ranks.get("model.layers.1.self_attn.k_proj"), Some(1));
        assert_eq!(ranks.get("model.layers.1.self_attn.q_proj"), Some(2));
        assert_eq!(ranks.get("model.layers.0.self_attn.q_proj"), None);
        let names = ["model.layers.1.self_attn.k_proj"];
        assert_eq!(ranks.unused(names.into_iter()), Some(2));
    }

    #[test]
    fn plain_patterns_match_as_compiled_ones_do() {
        let names =
            ["q_proj", "a.q_proj", "aq_proj", "a.b.q-proj", "a.bxq_proj", "x.a.b.q_proj", ""];
        let patterns = [
            "q_proj",
            "b.q_proj",
            r"b\.q_proj",
            "a.b.q.proj",
            ".",
            "",
            "q-proj",
            "proj",
            ".q_proj",
        ];
        for pattern in patterns {
            let plain = Plain::parse(pattern).expect("no operators");
            let compiled = Regex::new(&format!(r"\A(?:.*\.)?(?:{pattern})\z")).expect("a pattern");
            for name in names {
                assert_eq!(plain.matches(name), compiled.is_match(name), "{pattern} {name}");
            }
        }
        for pattern in [r"\d", "^q", "q$", "a|b", "a*", "(a)", "[ab]", r"a\"] {
            assert!(Plain::parse(pattern).is_none(), "{pattern}");
        }
    }

    #[test]
    fn the_last_list_of_a_name_counts() {
        let any = BlockIndex::new(&[]).expect("no pattern");
        assert_eq!(any.of("model.layers.3.self_attn.q_proj"), Some(3));
        assert_eq!(any.of("transformer.h.12.attn.c_attn"), Some(12));
        assert_eq!(any.of("lm_head"), None);
        // The list needs a parent, as PEFT's expression does.
        assert_eq!(any.of("layers.3.q_proj"), None);
        let named = BlockIndex::new(&["blocks".to_owned(), "h".to_owned()]).expect("patterns");
        assert_eq!(named.of("transformer.h.12.attn.c_attn"), Some(12));
        assert_eq!(named.of("model.layers.3.self_attn.q_proj"), None);
    }
}
