//! Sentences of an English text by the algorithm Punkt (Kiss and Strunk 2006, "Unsupervised Multilingual Sentence Boundary
//! Detection"), as IFEval counts them.
//!
//! Punkt's decisions depend on words that it learned from newspapers. Here they depend on short lists of our own, of
//! abbreviations and of words that are written in lower case within a sentence.

use crate::python_text::{is_space, trim_end};

/// Abbreviations that do not end a sentence, without their last point.
const ABBREVIATIONS: &[&str] = &[
    "a.m", "adm", "ala", "ariz", "aug", "ave", "b.v", "bros", "calif", "co", "col", "colo", "conn",
    "corp", "d.c", "dec", "dr", "feb", "fla", "fri", "gen", "ill", "inc", "jan", "jr", "l.a", "lt",
    "ltd", "m.b.a", "maj", "messrs", "mg", "mich", "minn", "mr", "mrs", "ms", "n.c", "n.d", "n.h",
    "n.j", "n.m", "n.v", "n.y", "nov", "oct", "okla", "ore", "p.m", "ph.d", "prof", "r.i", "s.a",
    "s.c", "sen", "sep", "sept", "sr", "st", "tenn", "tues", "u.k", "u.n", "u.s", "u.s.a",
    "u.s.s.r", "va", "vs", "wash", "wed", "wis", "yr",
];

/// Words that begin with a small letter unless they begin a sentence.
const COMMON: &[&str] = &[
    "a", "after", "all", "also", "an", "and", "another", "any", "are", "as", "at", "because",
    "before", "both", "but", "by", "can", "could", "did", "do", "does", "each", "even", "every",
    "few", "first", "for", "from", "had", "has", "have", "he", "her", "here", "his", "how",
    "however", "if", "in", "is", "it", "its", "just", "like", "many", "more", "most", "my", "next",
    "no", "not", "now", "of", "on", "once", "one", "only", "or", "other", "our", "please", "she",
    "should", "since", "so", "some", "such", "than", "that", "the", "their", "them", "then",
    "there", "these", "they", "this", "those", "though", "to", "under", "until", "was", "we",
    "were", "what", "when", "where", "which", "while", "who", "why", "will", "with", "would",
    "yes", "yet", "you", "your",
];

/// Number of sentences.
pub(super) fn count(text: &str) -> usize {
    sentences(text).len()
}

/// The sentences, without white space between them.
pub(super) fn sentences(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut slices = Vec::new();
    let mut start = 0;
    for (end, context) in candidates(&chars) {
        if !has_break(&context) {
            continue;
        }
        slices.push((start, end + 1));
        let next = (end + 1..chars.len()).find(|&at| !is_space(chars[at])).unwrap_or(chars.len());
        start = if is_space(chars[end + 1]) { next } else { end + 1 };
    }
    slices.push((start, trim_end(text).chars().count().max(start)));
    joined_closers(&chars, &slices)
}

/// Moves closing quotes and brackets to the sentence that they close.
fn joined_closers(chars: &[char], slices: &[(usize, usize)]) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut moved = 0;
    for (idx, &(start, end)) in slices.iter().enumerate() {
        let start = start + moved;
        let closers = slices.get(idx + 1).and_then(|&(from, to)| n_closing(&chars[from..to]));
        let (end, next_moved) = match (closers, slices.get(idx + 1)) {
            (Some((n_closers, n_all)), Some((from, _))) => (from + n_closers, n_all),
            _ => (end, 0),
        };
        moved = next_moved;
        if start < end {
            sentences.push(chars[start..end].iter().collect());
        }
    }
    sentences
}

/// Number of closing characters at the start of a sentence, if white space, dashes or its end follow; and that number with the
/// white space.
fn n_closing(sentence: &[char]) -> Option<(usize, usize)> {
    let n_all = sentence.iter().take_while(|&&c| is_closer(c)).count();
    for n in 1..=n_all {
        let rest = &sentence[n..];
        let n_spaces = rest.iter().take_while(|&&c| is_space(c)).count();
        if n_spaces > 0 || rest.is_empty() || rest.starts_with(&['-', '-']) {
            return Some((n, n + n_spaces));
        }
    }
    None
}

fn is_closer(c: char) -> bool {
    matches!(c, '"' | '\'' | ')' | ']' | '}' | '‘' | '’' | '“' | '”' | '«' | '»')
}

fn is_end(c: char) -> bool {
    matches!(c, '.' | '?' | '!')
}

/// Characters that are never part of a word.
fn is_outside(c: char) -> bool {
    is_closer(c) || matches!(c, ';' | '*' | ':' | '@' | '(' | '{' | '[' | '?' | '!')
}

/// Positions at which a sentence may end, with the words around them.
fn candidates(chars: &[char]) -> Vec<(usize, Vec<char>)> {
    let mut found = Vec::new();
    let mut previous: Option<(usize, usize)> = None;
    let mut slice = (0, 0);
    for at in (0..chars.len()).filter(|&at| is_end(chars[at]) && following(chars, at).is_some()) {
        let before = &chars[slice.1.min(at)..at];
        let space = before.iter().rposition(|&c| c.is_ascii_whitespace() || c == '\u{b}');
        let word = match space {
            Some(idx) if idx > 0 => idx + slice.1 + 1,
            _ => slice.0,
        };
        if let Some((end, from)) = previous
            && slice.1 <= word
        {
            found.push((end, context(chars, from, end)));
        }
        previous = Some((at, word));
        slice = (word, at);
    }
    found.extend(previous.map(|(end, from)| (end, context(chars, from, end))));
    found
}

/// End of the text after a candidate that decides about it: one character outside of words, or white space and a word.
fn following(chars: &[char], at: usize) -> Option<usize> {
    let next = *chars.get(at + 1)?;
    if is_outside(next) {
        return Some(at + 2);
    }
    if !is_space(next) {
        return None;
    }
    let word = (at + 1..chars.len()).find(|&idx| !is_space(chars[idx]))?;
    Some((word..chars.len()).find(|&idx| is_space(chars[idx])).unwrap_or(chars.len()))
}

fn context(chars: &[char], from: usize, end: usize) -> Vec<char> {
    chars[from..following(chars, end).unwrap_or(end + 1)].to_vec()
}

/// A word with the decisions about it.
#[derive(Debug)]
struct Word {
    text: String,
    /// In lower case, with `#` for a number.
    kind: String,
    is_break: bool,
    is_abbreviation: bool,
    is_ellipsis: bool,
}

/// Whether a sentence ends before the last word of a context.
fn has_break(context: &[char]) -> bool {
    let text: String = context.iter().collect();
    let mut words: Vec<Word> = text.split('\n').flat_map(words_of).map(first_decision).collect();
    for idx in 1..words.len() {
        let (before, after) = words.split_at_mut(idx);
        if let (Some(word), Some(next)) = (before.last_mut(), after.first()) {
            second_decision(word, next);
        }
    }
    let n_before_last = words.len().saturating_sub(1);
    words.iter().take(n_before_last).any(|word| word.is_break)
}

/// Words and single marks of a line.
fn words_of(line: &str) -> Vec<String> {
    let chars: Vec<char> = line.chars().collect();
    let mut words = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let n = match n_of_mark(rest) {
            0 if is_space(rest[0]) => {
                at += 1;
                continue;
            }
            0 if is_word_start(rest[0]) => {
                (1..rest.len()).find(|&n| ends_word(&rest[n..])).unwrap_or(rest.len())
            }
            0 => 1,
            n => n,
        };
        words.push(rest[..n].iter().collect());
        at += n;
    }
    words
}

fn is_word_start(c: char) -> bool {
    !matches!(
        c,
        '(' | '"'
            | '`'
            | '{'
            | '['
            | ':'
            | ';'
            | '&'
            | '#'
            | '*'
            | '@'
            | ')'
            | '}'
            | ']'
            | '-'
            | ','
    )
}

fn ends_word(rest: &[char]) -> bool {
    let at_end = |rest: &[char]| {
        rest.first().is_none_or(|&c| is_space(c) || is_outside(c)) || n_of_mark(rest) > 0
    };
    at_end(rest) || rest.first() == Some(&',') && at_end(&rest[1..])
}

/// Length of a mark of several characters at the start: dashes, points, or points with white space between them.
fn n_of_mark(rest: &[char]) -> usize {
    let n_same = |c: char| rest.iter().take_while(|&&other| other == c).count();
    let n = n_same('-').max(n_same('.'));
    if n >= 2 {
        return n;
    }
    let pairs = rest.chunks_exact(2).take_while(|pair| pair[0] == '.' && is_space(pair[1])).count();
    // The last point follows at least two pairs.
    let n_pairs = (2..=pairs).rev().find(|&n| rest.get(2 * n) == Some(&'.'));
    n_pairs.map_or(0, |n| 2 * n + 1)
}

fn first_decision(text: String) -> Word {
    let lower = text.to_lowercase();
    let kind = if is_number(&lower) { "#".to_owned() } else { lower };
    let is_ellipsis = text.starts_with("..") && text.chars().all(|c| c == '.');
    let mut word = Word { text, kind, is_break: false, is_abbreviation: false, is_ellipsis };
    if word.text.chars().count() == 1 && word.text.starts_with(is_end) {
        word.is_break = true;
    } else if word.text.ends_with('.') && !word.text.ends_with("..") {
        let stem = word.text[..word.text.len() - 1].to_lowercase();
        let last = stem.rsplit('-').next().unwrap_or_default();
        word.is_abbreviation =
            [stem.as_str(), last].iter().any(|stem| ABBREVIATIONS.contains(stem));
        word.is_break = !word.is_abbreviation;
    }
    word
}

/// A number with points, commas and hyphens.
fn is_number(lower: &str) -> bool {
    let text = lower.strip_prefix('-').unwrap_or(lower);
    let text = text.strip_prefix(['.', ',']).unwrap_or(text);
    text.starts_with(char::is_numeric)
        && text.chars().all(|c| c.is_numeric() || matches!(c, ',' | '.' | '-'))
}

fn without_point(kind: &str) -> &str {
    let stem = kind.strip_suffix('.').unwrap_or(kind);
    if stem.is_empty() { kind } else { stem }
}

/// Corrects the decision about a word that ends with a point by the word after it.
fn second_decision(word: &mut Word, next: &Word) {
    if !word.text.ends_with('.') {
        return;
    }
    let is_number = without_point(&word.kind) == "#";
    let next_kind = if next.is_break { without_point(&next.kind) } else { next.kind.as_str() };
    let is_initial = {
        let mut chars = word.text.chars();
        chars.next().is_some_and(char::is_alphabetic) && chars.as_str() == "."
    };
    let begins = begins_sentence(next, next_kind);
    if (word.is_abbreviation || word.is_ellipsis) && !is_initial {
        if begins == Some(true) {
            word.is_break = true;
        }
        return;
    }
    if is_initial || is_number {
        let is_name = next.text.starts_with(char::is_uppercase) && !COMMON.contains(&next_kind);
        if begins == Some(false) || begins.is_none() && is_initial && is_name {
            word.is_break = false;
        }
    }
}

/// Whether a word begins a sentence, judged by its case; `None` if that is no evidence.
fn begins_sentence(word: &Word, kind: &str) -> Option<bool> {
    if matches!(word.text.as_str(), ";" | ":" | "," | "." | "!" | "?") {
        return Some(false);
    }
    let first = word.text.chars().next()?;
    if first.is_lowercase() {
        return Some(false);
    }
    (first.is_uppercase() && COMMON.contains(&kind)).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::sentences;

    #[test]
    fn marks_abbreviations_and_quotes() {
        for (text, expected) in [
            ("Dr. Smith came. He left!", &["Dr. Smith came.", "He left!"][..]),
            (
                "She said \"go.\" Then (he went.) Done",
                &["She said \"go.\"", "Then (he went.)", "Done"],
            ),
            ("No... yes. It is 3.5 or No. 5.", &["No... yes.", "It is 3.5 or No.", "5."]),
            ("In the U.S. The end. J. K. Rowling", &["In the U.S.", "The end.", "J. K. Rowling"]),
            ("Very bad!!! I promise", &["Very bad!!!", "I promise"]),
            ("", &[]),
        ] {
            assert_eq!(sentences(text), expected, "{text}");
        }
    }
}
