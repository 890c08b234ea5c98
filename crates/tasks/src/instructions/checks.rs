//! The checks of single instructions. Names, arguments and rules are those of IFEval.

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::{sentences, words};
use crate::python_text::{is_space, trim};

/// Maximum size of a compiled pattern.
const COMPILED_BYTES: usize = 1 << 21;

/// An instruction with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Check {
    Keywords(Vec<String>),
    KeywordFrequency(String, Bound),
    ForbiddenWords(Vec<String>),
    LetterFrequency(char, Bound),
    Sentences(Bound),
    Paragraphs(usize),
    Words(Bound),
    /// Number of paragraphs, number of one of them, and its first word in lower case.
    FirstWord(usize, usize, String),
    Placeholders(usize),
    Postscript(String),
    Bullets(usize),
    OneOfThree,
    Highlights(usize),
    Sections(String, usize),
    Json,
    Title,
    TwoResponses,
    RepeatPrompt(String),
    End(String),
    CapitalWords(Bound),
    Uppercase,
    Lowercase,
    NoComma,
    Quotation,
}

/// A limit of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    LessThan(usize),
    AtLeast(usize),
}

impl Bound {
    fn holds(self, n: usize) -> bool {
        match self {
            Self::LessThan(limit) => n < limit,
            Self::AtLeast(limit) => n >= limit,
        }
    }
}

/// Arguments of an instruction; null and 0 count as missing.
struct Arguments<'a>(&'a Value);

impl Arguments<'_> {
    fn number(&self, key: &str) -> Result<usize, String> {
        let value = self.0.get(key);
        // Columns of numbers with gaps come as decimals from some files.
        let number = value.and_then(|value| {
            let whole = value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..1e15).contains(n));
            value.as_u64().or(whole.map(|n| n as u64))
        });
        match number {
            Some(n) if n > 0 => Ok(n as usize),
            _ => Err(format!("`{key}` is not a number above 0")),
        }
    }

    fn text(&self, key: &str) -> Result<&str, String> {
        let text = self.0.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.ok_or_else(|| format!("`{key}` is not a text"))
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, String> {
        let list = self.0.get(key).and_then(Value::as_array).filter(|list| !list.is_empty());
        let texts = list.and_then(|list| {
            list.iter().map(|text| text.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        texts.ok_or_else(|| format!("`{key}` is not a list of texts"))
    }

    fn bound(&self, relation: &str, number: &str) -> Result<Bound, String> {
        let n = self.number(number)?;
        match self.text(relation)? {
            "less than" => Ok(Bound::LessThan(n)),
            "at least" => Ok(Bound::AtLeast(n)),
            other => Err(format!("`{relation}` is neither `less than` nor `at least`: `{other}`")),
        }
    }
}

impl Check {
    /// The check of an instruction; `None` if the instruction is about the language of the answer. The error is a sentence.
    pub(super) fn new(name: &str, arguments: &Value) -> Result<Option<Self>, String> {
        let of = Arguments(arguments);
        Ok(Some(match name {
            "keywords:existence" => Self::Keywords(of.texts("keywords")?),
            "keywords:frequency" => Self::KeywordFrequency(
                trim(of.text("keyword")?).to_owned(),
                of.bound("relation", "frequency")?,
            ),
            "keywords:forbidden_words" => Self::ForbiddenWords(of.texts("forbidden_words")?),
            "keywords:letter_frequency" => {
                let letter = of.text("letter")?.to_lowercase();
                let mut chars = letter.chars();
                match (chars.next(), chars.next()) {
                    (Some(letter), None) => {
                        Self::LetterFrequency(letter, of.bound("let_relation", "let_frequency")?)
                    }
                    _ => return Err(format!("`letter` is not one letter: `{letter}`")),
                }
            }
            "language:response_language" => return Ok(None),
            "length_constraints:number_sentences" => {
                Self::Sentences(of.bound("relation", "num_sentences")?)
            }
            "length_constraints:number_paragraphs" => {
                Self::Paragraphs(of.number("num_paragraphs")?)
            }
            "length_constraints:number_words" => Self::Words(of.bound("relation", "num_words")?),
            "length_constraints:nth_paragraph_first_word" => Self::FirstWord(
                of.number("num_paragraphs")?,
                of.number("nth_paragraph")?,
                of.text("first_word")?.to_lowercase(),
            ),
            "detectable_content:number_placeholders" => {
                Self::Placeholders(of.number("num_placeholders")?)
            }
            "detectable_content:postscript" => {
                Self::Postscript(trim(of.text("postscript_marker")?).to_owned())
            }
            "detectable_format:number_bullet_lists" => Self::Bullets(of.number("num_bullets")?),
            "detectable_format:constrained_response" => Self::OneOfThree,
            "detectable_format:number_highlighted_sections" => {
                Self::Highlights(of.number("num_highlights")?)
            }
            "detectable_format:multiple_sections" => Self::Sections(
                trim(of.text("section_spliter")?).to_owned(),
                of.number("num_sections")?,
            ),
            "detectable_format:json_format" => Self::Json,
            "detectable_format:title" => Self::Title,
            "combination:two_responses" => Self::TwoResponses,
            "combination:repeat_prompt" => {
                Self::RepeatPrompt(trim(of.text("prompt_to_repeat")?).to_lowercase())
            }
            "startend:end_checker" => Self::End(trim(of.text("end_phrase")?).to_lowercase()),
            "startend:quotation" => Self::Quotation,
            "change_case:capital_word_frequency" => {
                Self::CapitalWords(of.bound("capital_relation", "capital_frequency")?)
            }
            "change_case:english_capital" => Self::Uppercase,
            "change_case:english_lowercase" => Self::Lowercase,
            "punctuation:no_comma" => Self::NoComma,
            _ => return Err("no such instruction".to_owned()),
        }))
    }

    /// A function that checks texts, none of which is empty.
    pub(super) fn checker(&self) -> Box<dyn Fn(&str) -> bool + '_> {
        match self {
            Self::Keywords(keywords) => {
                let patterns = patterns(keywords, str::to_owned);
                Box::new(move |text| patterns.iter().all(|pattern| pattern.is_match(text)))
            }
            Self::KeywordFrequency(keyword, bound) => {
                let pattern = pattern(keyword, str::to_owned);
                Box::new(move |text| bound.holds(pattern.find_iter(text).count()))
            }
            Self::ForbiddenWords(list) => {
                let patterns = patterns(list, |word| format!(r"\b{word}\b"));
                Box::new(move |text| !patterns.iter().any(|pattern| pattern.is_match(text)))
            }
            Self::LetterFrequency(letter, bound) => {
                Box::new(|text| bound.holds(text.to_lowercase().matches(*letter).count()))
            }
            Self::Sentences(bound) => Box::new(|text| bound.holds(sentences::count(text))),
            Self::Paragraphs(n) => Box::new(|text| n_divided(text) == Some(*n)),
            Self::Words(bound) => Box::new(|text| bound.holds(words::count(text))),
            Self::FirstWord(n, nth, word) => Box::new(|text| has_first_word(text, *n, *nth, word)),
            Self::Placeholders(n) => counts(r"\[.*?\]", |found| found >= *n),
            Self::Postscript(marker) => {
                let pattern = match marker.as_str() {
                    "P.P.S" => Regex::new(r"p\.\s?p\.\s?s"),
                    "P.S." => Regex::new(r"p\.\s?s\."),
                    other => Regex::new(&regex::escape(&other.to_lowercase())),
                };
                let pattern = pattern.expect("a valid pattern");
                Box::new(move |text| pattern.is_match(&text.to_lowercase()))
            }
            Self::Bullets(n) => {
                let stars = Regex::new(r"(?m)^\s*\*[^*].*$").expect("a valid pattern");
                let dashes = Regex::new(r"(?m)^\s*-.*$").expect("a valid pattern");
                Box::new(move |text| {
                    stars.find_iter(text).count() + dashes.find_iter(text).count() == *n
                })
            }
            Self::OneOfThree => Box::new(|text| {
                ["yes", "no", "maybe"]
                    .iter()
                    .any(|word| text.contains(&format!("My answer is {word}.")))
            }),
            Self::Highlights(n) => Box::new(|text| n_highlights(text) >= *n),
            Self::Sections(splitter, n) => {
                let pattern =
                    pattern_of_case(splitter, |splitter| format!(r"\s?{splitter}\s?\d+\s?"));
                Box::new(move |text| pattern.find_iter(text).count() >= *n)
            }
            Self::Json => Box::new(is_json),
            Self::Title => Box::new(has_title),
            Self::TwoResponses => Box::new(are_two_responses),
            Self::RepeatPrompt(prompt) => {
                Box::new(|text| trim(text).to_lowercase().starts_with(prompt.as_str()))
            }
            Self::End(phrase) => Box::new(|text| {
                trim(text).trim_matches('"').to_lowercase().ends_with(phrase.as_str())
            }),
            Self::CapitalWords(bound) => Box::new(|text| bound.holds(words::count_capitals(text))),
            Self::Uppercase => Box::new(words::is_upper),
            Self::Lowercase => Box::new(words::is_lower),
            Self::NoComma => Box::new(|text| !text.contains(',')),
            Self::Quotation => Box::new(|text| {
                let text = trim(text);
                text.len() > 1 && text.starts_with('"') && text.ends_with('"')
            }),
        }
    }
}

fn patterns(words: &[String], form: impl Fn(&str) -> String) -> Vec<Regex> {
    words.iter().map(|word| pattern(word, &form)).collect()
}

/// A keyword as a pattern without regard to case; as plain text if it is no valid pattern.
fn pattern(word: &str, form: impl Fn(&str) -> String) -> Regex {
    pattern_of_case(word, |word| format!("(?i){}", form(word)))
}

fn pattern_of_case(word: &str, form: impl Fn(&str) -> String) -> Regex {
    let compile = |word: &str| RegexBuilder::new(&form(word)).size_limit(COMPILED_BYTES).build();
    compile(word).or_else(|_| compile(&regex::escape(word))).unwrap_or_else(|_| {
        // A text that is too long for a pattern matches nothing.
        Regex::new(r"[^\s\S]").expect("a valid pattern")
    })
}

fn counts<'a>(pattern: &str, holds: impl Fn(usize) -> bool + 'a) -> Box<dyn Fn(&str) -> bool + 'a> {
    let pattern = Regex::new(pattern).expect("a valid pattern");
    Box::new(move |text| holds(pattern.find_iter(text).count()))
}

/// Number of paragraphs between lines of three asterisks; `None` if one in the middle is empty.
fn n_divided(text: &str) -> Option<usize> {
    let divider = Regex::new(r"\s?\*\*\*\s?").expect("a valid pattern");
    let parts: Vec<&str> = divider.split(text).collect();
    let is_empty = |part: &&str| trim(part).is_empty();
    let n_inner = parts.len().saturating_sub(2);
    if parts.iter().skip(1).take(n_inner).any(is_empty) {
        return None;
    }
    Some(parts.iter().filter(|part| !is_empty(part)).count())
}

fn has_first_word(text: &str, n: usize, nth: usize, word: &str) -> bool {
    let paragraphs: Vec<&str> = text.split("\n\n").collect();
    let n_filled = paragraphs.iter().filter(|part| !trim(part).is_empty()).count();
    if nth > n_filled || n_filled != n {
        return false;
    }
    // The number counts empty paragraphs too.
    let paragraph = paragraphs.get(nth - 1).map_or("", |part| trim(part));
    let first = paragraph.split(is_space).next().unwrap_or_default();
    let first = first.trim_start_matches('\'').trim_start_matches('"');
    let end = first.find(['.', ',', '?', '!', '\'', '"']).unwrap_or(first.len());
    !paragraph.is_empty() && first[..end].to_lowercase() == word
}

fn n_highlights(text: &str) -> usize {
    let single = Regex::new(r"\*[^\n*]*\*").expect("a valid pattern");
    let double = Regex::new(r"\*\*[^\n*]*\*\*").expect("a valid pattern");
    let of = |pattern: &Regex| {
        let found = pattern.find_iter(text).map(|found| found.as_str());
        found.filter(|found| !trim(found.trim_matches('*')).is_empty()).count()
    };
    of(&single) + of(&double)
}

/// Whether the text is JSON, in a block of code or not.
fn is_json(text: &str) -> bool {
    let mut text = trim(text);
    for fence in ["```json", "```Json", "```JSON", "```"] {
        text = text.strip_prefix(fence).unwrap_or(text);
    }
    let text = trim(text.strip_suffix("```").unwrap_or(text));
    serde_json::from_str::<Value>(text).is_ok()
}

fn has_title(text: &str) -> bool {
    let pattern = Regex::new(r"<<[^\n]+>>").expect("a valid pattern");
    let mut titles = pattern.find_iter(text).map(|found| found.as_str());
    titles.any(|title| !trim(title.trim_start_matches('<').trim_end_matches('>')).is_empty())
}

/// Whether six asterisks separate two different answers.
fn are_two_responses(text: &str) -> bool {
    let parts: Vec<&str> = text.split("******").map(trim).collect();
    let last = parts.len() - 1;
    if parts.iter().enumerate().any(|(idx, part)| part.is_empty() && idx != 0 && idx != last) {
        return false;
    }
    let filled: Vec<&&str> = parts.iter().filter(|part| !part.is_empty()).collect();
    matches!(filled.as_slice(), [first, second] if first != second)
}
