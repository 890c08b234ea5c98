//! The `choice` reward: whether a completion selects the right option of a multiple-choice question.

use recipe::{ChoiceKeys, Extract};

use crate::extract::stated;

/// The letter of a right answer as the data has it, such as `B` or `(B)`; `None` if it is none of `choices`.
pub(crate) fn gold(text: &str, choices: &str) -> Option<char> {
    let text = text.trim().trim_matches(|c| matches!(c, '(' | ')' | '.' | ':'));
    let mut letters = text.trim().chars();
    let letter = letters.next()?.to_ascii_uppercase();
    (letters.next().is_none() && choices.contains(letter)).then_some(letter)
}

/// 1 if the completion selects the option `gold`, else 0; and the reason.
pub(crate) fn score(text: &str, gold: char, keys: &ChoiceKeys) -> (f64, String) {
    match answer(text, keys) {
        Err(why) => (0.0, why),
        Ok(found) if found == gold => (1.0, format!("{found} is {gold}")),
        Ok(found) => (0.0, format!("{found} is not {gold}")),
    }
}

/// The option that a completion selects.
fn answer(text: &str, keys: &ChoiceKeys) -> Result<char, String> {
    if keys.extract == Extract::Last {
        return last_option(text, &keys.choices);
    }
    let mut answer = None;
    for text in stated(text, &keys.extract)? {
        let alone = gold(text, &keys.choices);
        let mut letters = options(text, &keys.choices).into_iter().map(|found| found.letter);
        let first = alone.or_else(|| letters.next()).ok_or_else(|| "no option".to_owned())?;
        let others = letters.chain(answer).find(|other| *other != first);
        if let (None, Some(other)) = (alone, others) {
            return Err(format!("two answers: {first} and {other}"));
        }
        if let Some(other) = answer.filter(|other| *other != first) {
            return Err(format!("two answers: {other} and {first}"));
        }
        answer = Some(first);
    }
    answer.ok_or_else(|| "no option".to_owned())
}

/// The last option of a text, unless the text names two together.
fn last_option(text: &str, choices: &str) -> Result<char, String> {
    if let Some(letter) = gold(text, choices) {
        return Ok(letter);
    }
    let chars: Vec<char> = text.chars().collect();
    let found = options(text, choices);
    let Some(last) = found.last() else { return Err("no option".to_owned()) };
    let before = found.len().checked_sub(2).and_then(|at| found.get(at));
    if let Some(before) = before.filter(|before| before.letter != last.letter) {
        let between: String =
            chars.get(before.at + 1..last.at).unwrap_or_default().iter().collect();
        if is_together(&between) {
            return Err(format!("two answers: {} and {}", before.letter, last.letter));
        }
    }
    Ok(last.letter)
}

/// Whether the text between two options names them together.
fn is_together(between: &str) -> bool {
    let words = between
        .split(|c: char| c.is_whitespace() || matches!(c, ',' | '/' | '&' | '(' | ')' | '*'));
    words.filter(|word| !word.is_empty()).all(|word| matches!(word, "or" | "and" | "both"))
}

/// An option in a text.
struct Found {
    letter: char,
    /// Index of its character.
    at: usize,
}

/// Letters of `choices` that are words of their own. The article in `A dog` and the pronoun in `I think` are none.
fn options(text: &str, choices: &str) -> Vec<Found> {
    let chars: Vec<char> = text.chars().collect();
    let get = |at: Option<usize>| at.and_then(|at| chars.get(at)).copied();
    let is_joined = |c: Option<char>| {
        c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '\'' | '\u{2019}'))
    };
    let mut found = Vec::new();
    for (at, &c) in chars.iter().enumerate() {
        let (before, after) = (get(at.checked_sub(1)), get(Some(at + 1)));
        if is_joined(before) || is_joined(after) {
            continue;
        }
        let is_in_brackets = before == Some('(') && after == Some(')');
        let letter = if is_in_brackets { c.to_ascii_uppercase() } else { c };
        if !choices.contains(letter) {
            continue;
        }
        let next: String = chars.get(at + 1..).unwrap_or_default().iter().take(12).collect();
        let is_word = match letter {
            'A' => is_article(&next),
            'I' => next.starts_with(' ') && next.trim_start().starts_with(char::is_alphabetic),
            _ => false,
        };
        if !is_word {
            found.push(Found { letter, at });
        }
    }
    found
}

/// Whether `A` before this text is the article.
fn is_article(next: &str) -> bool {
    let word = next.strip_prefix(' ').unwrap_or_default();
    let word: String = word.chars().take_while(|c| c.is_alphanumeric()).collect();
    let is_name = ["is", "or", "and", "because", "since", "as"].contains(&word.as_str());
    !is_name && word.starts_with(|c: char| c.is_lowercase())
}
