//! What can be wrong with a recipe, and how it is shown. Prints nothing itself.

use std::fmt;
use std::path::PathBuf;

use crate::location::KeyLocation;

/// What reading a recipe returns.
pub type Result<T> = std::result::Result<T, Error>;

/// What can be wrong with a recipe or an override.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read, or is larger than a recipe may be.
    #[error(transparent)]
    Read(#[from] fsio::Error),
    /// The file is not UTF-8 text.
    #[error("{}:{line}:{column}: the recipe is not UTF-8 text: `\\x{byte:02x}`", path.display())]
    NotUtf8 {
        /// The recipe.
        path: PathBuf,
        /// The line of the first wrong byte, from 1.
        line: usize,
        /// Its column, from 1.
        column: usize,
        /// The byte.
        byte: u8,
    },
    /// The file is not TOML.
    #[error("{0}")]
    Syntax(Box<Diagnostic>),
    /// The file is TOML, but not a recipe: an unknown key, a wrong type, a value out of range, or
    /// two keys that contradict.
    #[error("{0}")]
    Invalid(Box<Diagnostic>),
    /// An override that cannot be applied.
    #[error("cannot set `{argument}`: {reason}")]
    Override {
        /// The override, `key=value`.
        argument: String,
        /// Why not.
        reason: String,
        /// What to do about it.
        hint: String,
    },
}

impl Error {
    /// What to do about it; `None` where the message itself says it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read(fsio::Error::TooLarge { .. }) => {
                Some("a recipe names data by path and holds none".to_owned())
            }
            Self::Read(error) => error.hint(),
            Self::NotUtf8 { .. } => Some("save the file as UTF-8".to_owned()),
            Self::Syntax(diagnostic) | Self::Invalid(diagnostic) => diagnostic.hint.clone(),
            Self::Override { hint, .. } => Some(hint.clone()),
        }
    }

    /// Where it is, if it has a place.
    pub fn place(&self) -> Option<&KeyLocation> {
        match self {
            Self::Syntax(diagnostic) | Self::Invalid(diagnostic) => diagnostic.place.as_ref(),
            Self::Read(_) | Self::NotUtf8 { .. } | Self::Override { .. } => None,
        }
    }
}

/// A message with its place, the line it is about and a caret under the words it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// Where.
    pub place: Option<KeyLocation>,
    /// The line, and what to underline.
    pub snippet: Option<Snippet>,
    /// What stands after the carets.
    pub label: String,
    /// What to do about it, where the label does not say it.
    pub hint: Option<String>,
}

/// A line of a recipe and the part of it to underline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snippet {
    /// The line's number, from 1; none for the command line.
    pub line_number: Option<usize>,
    /// The line's text, safe to print.
    pub text: String,
    /// The characters before the underlined part.
    pub start: usize,
    /// The underlined characters.
    pub len: usize,
}

/// The most characters of a line that are shown.
const SNIPPET_WIDTH: usize = 100;

impl Snippet {
    /// Cuts a line to what fits a terminal around the bytes `start..end`, and makes control
    /// characters visible.
    pub(crate) fn new(line_number: Option<usize>, line: &str, start: usize, end: usize) -> Self {
        let chars_to = |byte: usize| line.char_indices().take_while(|(at, _)| *at < byte).count();
        let (mut start, end) = (chars_to(start), chars_to(end));
        let mut len = end.saturating_sub(start).max(1);
        let mut text: Vec<char> = line.chars().map(printable).collect();
        let skipped =
            if start + len > SNIPPET_WIDTH { start.saturating_sub(SNIPPET_WIDTH / 3) } else { 0 };
        if skipped > 0 {
            text.drain(..skipped.min(text.len()));
            text.insert(0, '…');
            start = start - skipped + 1;
        }
        if text.len() > SNIPPET_WIDTH {
            text.truncate(SNIPPET_WIDTH);
            text.push('…');
        }
        len = len.min(text.len().saturating_sub(start).max(1));
        let text: String = text.into_iter().collect();
        Self { line_number, text: text.trim_end().to_owned(), start, len }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if let Some(place) = &self.place {
            match place {
                KeyLocation::Override { .. } => write!(f, "\n  --> the command line")?,
                KeyLocation::File { .. } => write!(f, "\n  --> {place}")?,
            }
        }
        let Some(snippet) = &self.snippet else {
            return Ok(());
        };
        let number = snippet.line_number.map(|n| n.to_string()).unwrap_or_default();
        let width = number.len().max(2);
        write!(f, "\n{:width$} |", "")?;
        write!(f, "\n{number:>width$} | {}", snippet.text)?;
        write!(
            f,
            "\n{:width$} | {:start$}{}",
            "",
            "",
            "^".repeat(snippet.len),
            start = snippet.start
        )?;
        if !self.label.is_empty() {
            write!(f, " {}", self.label)?;
        }
        Ok(())
    }
}

/// A character that cannot move the cursor or change colours: tabs and line ends become spaces.
fn printable(c: char) -> char {
    match c {
        '\t' | '\n' | '\r' => ' ',
        c if c.is_control() || is_direction_mark(c) => '\u{fffd}',
        c => c,
    }
}

/// Marks that reorder what is shown, so that a line could look like another one.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A foreign text for a message: one line, at most 60 characters, nothing that a terminal obeys.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(60).map(printable).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_around_the_carets() {
        let line = format!("{}key = 1{}", "x".repeat(500), "y".repeat(500));
        let snippet = Snippet::new(Some(1), &line, 500, 503);
        let under: String = snippet.text.chars().skip(snippet.start).take(snippet.len).collect();
        assert_eq!(under, "key");
        assert!(snippet.text.chars().count() <= SNIPPET_WIDTH + 2);
    }

    #[test]
    fn control_characters_are_not_obeyed() {
        let snippet = Snippet::new(Some(1), "a\x1b[31m = 1\r", 0, 1);
        assert!(!snippet.text.contains('\x1b'));
        assert_eq!(shown("a\nb\u{202e}"), "a b\u{fffd}");
    }
}
