//! Filters that extract an answer from completions, each a sequence of steps.

use serde::Deserialize;

use crate::pattern::{Found, Pattern};
use crate::python_text::trim;

/// The answer where a pattern does not match.
const FALLBACK: &str = "[invalid]";

/// A filter as written in a task file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FilterKeys {
    name: String,
    steps: Vec<StepKeys>,
}

impl FilterKeys {
    /// Name of the filter in metrics.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// A step as written in a task file.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum StepKeys {
    /// The first or another match of a pattern.
    Regex {
        pattern: String,
        #[serde(default)]
        select: i64,
        fallback: Option<String>,
    },
    /// Removes white space on both sides.
    RemoveWhitespace {},
    /// Lower case.
    Lowercase {},
    /// Upper case.
    Uppercase {},
    /// The most frequent of several completions, the first among equals.
    MajorityVote {},
    /// The first completion.
    TakeFirst {},
    /// The completion with the highest score of the reward model.
    BestOf {},
}

/// A compiled filter.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) name: String,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Regex { pattern: Pattern, select: i64, fallback: String },
    RemoveWhitespace,
    Lowercase,
    Uppercase,
    MajorityVote,
    TakeFirst,
    BestOf,
}

impl Filter {
    /// The filter of a task that names none: the first completion as it is.
    pub(crate) fn none() -> Self {
        Self { name: "none".to_owned(), steps: vec![Step::TakeFirst] }
    }

    pub(crate) fn new(keys: FilterKeys) -> Result<Self, String> {
        if keys.name.is_empty() || keys.name.contains(',') {
            return Err(format!("a filter's name is not empty and has no comma: `{}`", keys.name));
        }
        let steps = keys.steps.into_iter().map(Step::new).collect::<Result<_, _>>()?;
        Ok(Self { name: keys.name, steps })
    }

    /// The answer in one or several completions.
    ///
    /// `rewards` are their scores, for the step `best_of`.
    pub(crate) fn apply(&self, completions: &[String], rewards: Option<&[f64]>) -> String {
        let mut texts = completions.to_vec();
        for step in &self.steps {
            step.apply(&mut texts, rewards);
        }
        texts.into_iter().next().unwrap_or_else(|| FALLBACK.to_owned())
    }

    /// Whether a step needs the scores of a reward model.
    pub(crate) fn needs_rewards(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::BestOf))
    }
}

impl Step {
    fn new(keys: StepKeys) -> Result<Self, String> {
        Ok(match keys {
            StepKeys::Regex { pattern, select, fallback } => Self::Regex {
                pattern: Pattern::new(&pattern)?,
                select,
                fallback: fallback.unwrap_or_else(|| FALLBACK.to_owned()),
            },
            StepKeys::RemoveWhitespace {} => Self::RemoveWhitespace,
            StepKeys::Lowercase {} => Self::Lowercase,
            StepKeys::Uppercase {} => Self::Uppercase,
            StepKeys::MajorityVote {} => Self::MajorityVote,
            StepKeys::TakeFirst {} => Self::TakeFirst,
            StepKeys::BestOf {} => Self::BestOf,
        })
    }

    fn apply(&self, texts: &mut Vec<String>, rewards: Option<&[f64]>) {
        match self {
            Self::Regex { pattern, select, fallback } => {
                for text in texts {
                    *text = selected(pattern, *select, text).unwrap_or_else(|| fallback.clone());
                }
            }
            Self::RemoveWhitespace => each(texts, |text| trim(text).to_owned()),
            Self::Lowercase => each(texts, str::to_lowercase),
            Self::Uppercase => each(texts, str::to_uppercase),
            Self::MajorityVote => {
                if let Some(winner) = most_frequent(texts) {
                    *texts = vec![winner];
                }
            }
            Self::TakeFirst => texts.truncate(1),
            Self::BestOf => {
                if let Some(best) = best_of(texts, rewards.unwrap_or_default()) {
                    *texts = vec![best];
                }
            }
        }
    }
}

fn each(texts: &mut [String], change: impl Fn(&str) -> String) {
    for text in texts {
        *text = change(text);
    }
}

/// The selected match without white space around it; negative numbers count from the last match.
///
/// Of several groups, the first that is not empty. Where the number is beyond the matches, none is selected.
fn selected(pattern: &Pattern, select: i64, text: &str) -> Option<String> {
    let found = pattern.find_all(text);
    let idx = if select < 0 { select + found.len() as i64 } else { select };
    let text = match found.get(usize::try_from(idx).ok()?)? {
        Found::One(text) => text,
        Found::Groups(groups) => groups.iter().find(|group| !group.is_empty())?,
    };
    Some(trim(text).to_owned())
}

/// The text with the highest reward, the first among equals.
fn best_of(texts: &[String], rewards: &[f64]) -> Option<String> {
    let pairs = texts.iter().zip(rewards).rev();
    let best = pairs.max_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map(|(text, _)| text.clone())
}

fn most_frequent(texts: &[String]) -> Option<String> {
    let count = |text: &String| texts.iter().filter(|other| *other == text).count();
    // `max_by_key` returns the last of equal ones.
    texts.iter().rev().max_by_key(|text| count(text)).cloned()
}

#[cfg(test)]
mod tests {
    use super::{Filter, FilterKeys};

    fn filter(toml: &str) -> Result<Filter, String> {
        let keys: FilterKeys = toml_edit::de::from_str(toml).map_err(|error| error.to_string())?;
        Filter::new(keys)
    }

    fn apply(steps: &str, completions: &[&str]) -> String {
        let completions: Vec<String> = completions.iter().map(|&text| text.to_owned()).collect();
        filter(&format!("name = 'x'\nsteps = [{steps}]")).unwrap().apply(&completions, None)
    }

    #[test]
    fn the_two_filters_of_gsm8k() {
        let strict =
            r"{ kind = 'regex', pattern = '#### (\-?[0-9\.\,]+)' }, { kind = 'take_first' }";
        let flexible = r"{ kind = 'regex', select = -1, pattern = '(-?[$0-9.,]{2,})|(-?[0-9]+)' }";
        for (text, first, last) in [
            ("3 and 2. #### 5,000\n#### 7", "5,000", "7"),
            ("It costs $12.50, so 3.", "[invalid]", "3."),
            ("no number", "[invalid]", "[invalid]"),
            ("#### -4", "-4", "-4"),
        ] {
            assert_eq!(apply(strict, &[text]), first, "{text}");
            if text.ends_with("3.") {
                // `3.` has two characters, so the first group takes it with its full stop.
                assert_eq!(apply(flexible, &[text]), "3.");
            } else {
                assert_eq!(apply(flexible, &[text]), last, "{text}");
            }
        }
    }

    #[test]
    fn votes_and_cases() {
        let vote =
            "{ kind = 'remove_whitespace' }, { kind = 'lowercase' }, { kind = 'majority_vote' }";
        assert_eq!(apply(vote, &["b", " A", "a ", "B", "c"]), "b");
        assert_eq!(apply(vote, &["b", " A", "a "]), "a");
        assert_eq!(apply("{ kind = 'uppercase' }, { kind = 'take_first' }", &["x", "y"]), "X");
        assert_eq!(apply("{ kind = 'regex', pattern = 'z', fallback = '?' }", &["x"]), "?");
    }

    #[test]
    fn the_best_of_several_completions_is_selected() {
        let steps = "{ kind = 'regex', pattern = '[0-9]+' }, { kind = 'best_of' }";
        let filter = filter(&format!("name = 'x'\nsteps = [{steps}]")).unwrap();
        let completions = ["a 1", "b 2", "c 3"].map(str::to_owned);
        assert!(filter.needs_rewards());
        assert_eq!(filter.apply(&completions, Some(&[-1.0, 2.0, 2.0])), "2");
    }

    #[test]
    fn mistakes_are_named() {
        assert!(filter("name = 'a,b'\nsteps = []").unwrap_err().contains("no comma"));
        let error = filter("name = 'a'\nsteps = [{ kind = 'regex', pattern = '(' }]").unwrap_err();
        assert!(error.contains("not a regular expression"), "{error}");
        let error = filter("name = 'a'\nsteps = [{ kind = 'rot13' }]").unwrap_err();
        assert!(error.contains("unknown variant `rot13`"), "{error}");
    }
}
