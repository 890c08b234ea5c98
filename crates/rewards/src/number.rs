//! The `number` reward: whether a completion states the right number.

use recipe::{Extract, NumberKeys};

use crate::extract::stated;
use crate::scan::Scan;
use crate::value::Number;

/// The number of a right answer as the data has it: the whole text, or what follows its last `####`.
///
/// `None` if the text is not one number with at most a unit.
pub(crate) fn gold(text: &str) -> Option<Number> {
    let text = text.rsplit("####").next().unwrap_or(text);
    only_number(text.trim()).ok()
}

/// 1 if the completion states the number `gold`, else 0; and the reason.
pub(crate) fn score(text: &str, gold: Number, keys: &NumberKeys) -> (f64, String) {
    match answer(text, &keys.extract) {
        Err(why) => (0.0, why),
        Ok(found) if found.equals(gold, keys.tolerance) => (1.0, format!("{found} is {gold}")),
        Ok(found) => (0.0, format!("{found} is not {gold}")),
    }
}

/// The number that a completion states as its answer.
fn answer(text: &str, extract: &Extract) -> Result<Number, String> {
    if *extract == Extract::Last {
        return last_number(text);
    }
    let mut answer = None;
    for text in stated(text, extract)? {
        let found = only_number(text)?;
        match answer {
            Some(other) if !found.equals(other, 0.0) => {
                return Err(format!("two answers: {other} and {found}"));
            }
            _ => answer = Some(found),
        }
    }
    answer.ok_or_else(|| "no number".to_owned())
}

/// The last number of a text, unless the text leaves it open between two numbers.
fn last_number(text: &str) -> Result<Number, String> {
    let scan = Scan::new(text);
    let Some(last) = scan.found.last() else { return Err("no number".to_owned()) };
    let number = last
        .number
        .ok_or_else(|| format!("`{}` is not a single number", scan.text(last.range.clone())))?;
    let before = scan.found.len().checked_sub(2).and_then(|at| scan.found.get(at));
    if let Some(before) = before
        && is_alternative(&scan.text(before.range.end..last.range.start))
        && before.number.is_some_and(|other| !other.equals(number, 0.0))
    {
        let both = scan.text(before.range.start..last.range.end);
        return Err(format!("two answers: {both}"));
    }
    Ok(number)
}

/// Whether the words between two numbers leave open which one is meant.
fn is_alternative(between: &str) -> bool {
    let words: Vec<&str> = between.split_whitespace().collect();
    matches!(words.as_slice(), ["or"] | [_, "or"] | ["or", "maybe" | "possibly" | "perhaps"])
}

/// The number of a text that states nothing else: several numbers must mean the same, and only what follows the last
/// equals sign counts.
fn only_number(text: &str) -> Result<Number, String> {
    let signs = ["=", "≈", "\\approx"];
    let after = |sign: &str| text.rfind(sign).map(|at| at + sign.len());
    let start = signs.into_iter().filter_map(after).max().unwrap_or(0);
    let scan = Scan::new(text.get(start..).unwrap_or_default());
    let mut only: Option<Number> = None;
    for found in &scan.found {
        let number = found.number.ok_or_else(|| {
            format!("`{}` is not a single number", scan.text(found.range.clone()))
        })?;
        match only {
            Some(other) if !number.equals(other, 0.0) => {
                return Err(format!("two numbers: {other} and {number}"));
            }
            _ => only = Some(number),
        }
    }
    only.ok_or_else(|| "no number".to_owned())
}
