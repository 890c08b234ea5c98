//! Errors of recipes and their format.

use std::fmt;
use std::path::PathBuf;

use crate::location::KeyLocation;

/// Result of reading a recipe.
pub type Result<T> = std::result::Result<T, Error>;

/// Error of a recipe or an override.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or is too large.
    #[error(transparent)]
    Read(#[from] fsio::Error),
    /// The file is not UTF-8 text.
    #[error("{}:{line}:{column}: the recipe is not UTF-8 text: `\\x{byte:02x}`", path.display())]
    NotUtf8 {
        /// The recipe.
        path: PathBuf,
        /// Line of the first invalid byte, from 1.
        line: usize,
        /// Its column, from 1.
        column: usize,
        /// The byte.
        byte: u8,
    },
    /// The file is not valid TOML.
    #[error("{0}")]
    Syntax(Box<Diagnostic>),
    /// The recipe is invalid: an unknown key, a wrong type, a value out of range, or conflicting
    /// keys.
    #[error("{0}")]
    Invalid(Box<Diagnostic>),
    /// An override that cannot be applied.
    #[error("cannot set `{argument}`: {reason}")]
    Override {
        /// The override, `key=value`.
        argument: String,
        /// Reason.
        reason: String,
        /// Advice on what to do.
        hint: String,
    },
}

impl Error {
    /// Advice on what to do; none if the message contains it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read(fsio::Error::TooLarge { .. }) => {
                Some("a recipe contains paths of data, not the data".to_owned())
            }
            Self::Read(error) => error.hint(),
            Self::NotUtf8 { .. } => Some("save the file as UTF-8".to_owned()),
            Self::Syntax(diagnostic) | Self::Invalid(diagnostic) => diagnostic.hint.clone(),
            Self::Override { hint, .. } => Some(hint.clone()),
        }
    }

    /// Location of the error, if known.
    pub fn location(&self) -> Option<&KeyLocation> {
        match self {
            Self::Syntax(diagnostic) | Self::Invalid(diagnostic) => diagnostic.location.as_ref(),
            Self::Read(_) | Self::NotUtf8 { .. } | Self::Override { .. } => None,
        }
    }
}

/// A message with its location and the line of the recipe, with the relevant part underlined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The message: lower case, no full stop.
    pub message: String,
    /// The location.
    pub location: Option<KeyLocation>,
    /// The line with its underlined part.
    pub snippet: Option<Snippet>,
    /// Text after the carets.
    pub label: String,
    /// Advice on what to do, if the label does not contain it.
    pub hint: Option<String>,
    /// Other problems of the same kind: one line each.
    pub others: Vec<String>,
}

/// A line of a recipe with an underlined part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snippet {
    /// Line number, from 1; none for the command line.
    pub line_number: Option<usize>,
    /// Text of the line, without control characters.
    pub text: String,
    /// Number of characters before the underlined part.
    pub start: usize,
    /// Number of underlined characters.
    pub len: usize,
}

/// Maximum number of characters of a line.
const SNIPPET_WIDTH: usize = 100;

impl Snippet {
    /// Cuts a line to the width of a terminal around the bytes `start..end`, and replaces control
    /// characters.
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
        if let Some(location) = &self.location {
            match location {
                KeyLocation::Override { .. } => write!(f, "\n  --> the command line")?,
                KeyLocation::File { .. } => write!(f, "\n  --> {location}")?,
            }
        }
        if let Some(snippet) = &self.snippet {
            self.write_snippet(f, snippet)?;
        }
        self.others.iter().try_for_each(|other| write!(f, "\n  also: {other}"))
    }
}

impl Diagnostic {
    fn write_snippet(&self, f: &mut fmt::Formatter<'_>, snippet: &Snippet) -> fmt::Result {
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

/// Replaces control characters, which could move the cursor or change colours. Tabs and line ends become spaces.
fn printable(c: char) -> char {
    match c {
        '\t' | '\n' | '\r' => ' ',
        c if c.is_control() || is_direction_mark(c) => '\u{fffd}',
        c => c,
    }
}

/// Whether a character changes the direction of text, which could disguise a line.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A foreign text for a message: one line of at most 60 characters, without control characters.
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
    fn control_characters_are_replaced() {
        let snippet = Snippet::new(Some(1), "a\x1b[31m = 1\r", 0, 1);
        assert!(!snippet.text.contains('\x1b'));
        assert_eq!(shown("a\nb\u{202e}"), "a b\u{fffd}");
    }
}
