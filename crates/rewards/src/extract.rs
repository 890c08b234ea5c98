//! The parts of a completion that state its answer.

use recipe::Extract;

/// The texts at the places that an [`Extract`] names: all of them, because answers that contradict each other are none.
///
/// The error says why there is no such text.
pub(crate) fn stated<'t>(text: &'t str, extract: &Extract) -> Result<Vec<&'t str>, String> {
    match extract {
        Extract::All | Extract::Last => Ok(vec![text.trim()]),
        Extract::Hashes => {
            let lines = text.split("####").skip(1);
            let answers: Vec<&str> =
                lines.map(|rest| rest.lines().next().unwrap_or_default().trim()).collect();
            if answers.is_empty() { Err("no `####`".to_owned()) } else { Ok(answers) }
        }
        Extract::Boxed => boxed(text),
        Extract::Tag(name) => tagged(text, name),
    }
}

/// Contents of every `\boxed{…}`.
fn boxed(text: &str) -> Result<Vec<&str>, String> {
    const OPEN: &str = "\\boxed{";
    let mut answers = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(OPEN) {
        let mut depth = 1_usize;
        let end = after.char_indices().find(|(at, c)| {
            let is_escaped = after.get(..*at).is_some_and(|before| before.ends_with('\\'));
            match c {
                '{' if !is_escaped => depth += 1,
                '}' if !is_escaped => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let Some((end, _)) = end else { return Err("`\\boxed{` is not closed".to_owned()) };
        answers.push(after.get(..end).unwrap_or_default().trim());
        rest = after.get(end..).unwrap_or_default();
    }
    if answers.is_empty() { Err("no `\\boxed{…}`".to_owned()) } else { Ok(answers) }
}

/// Contents of every `<name>…</name>`.
fn tagged<'t>(text: &'t str, name: &str) -> Result<Vec<&'t str>, String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut answers = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(&open) {
        let Some((inside, next)) = after.split_once(&close) else {
            return Err(format!("`{open}` is not closed"));
        };
        answers.push(inside.trim());
        rest = next;
    }
    if answers.is_empty() { Err(format!("no `{open}`")) } else { Ok(answers) }
}
