//! Lines from a person, with editing and history, or from a file or pipe.

use std::borrow::Cow;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Editor, Helper};

use super::command::NAMES;
use crate::failure::{Failure, Result};
use crate::render::printable::is_unsafe;

const PROMPT: &str = "> ";
/// Ends the marks around pasted text, which the editor asks the terminal for.
const NO_PASTE_MARKS: &[u8] = b"\x1b[?2004l\r\n";

/// The terminal's settings before the editor changed them.
static BEFORE: OnceLock<Termios> = OnceLock::new();

/// A line of input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Text(String),
    /// Ctrl-C: the line is dropped.
    Interrupted,
    /// Bytes that are not UTF-8: the line is dropped.
    NotText,
    End,
}

/// Where lines come from.
pub(super) enum Input {
    Person(Box<Editor<Assistance, MemHistory>>, Arc<AtomicBool>),
    Lines,
}

impl Input {
    /// An editor on a terminal, whose ctrl-C no longer ends the program; else stdin.
    pub(super) fn open() -> Result<Self> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(Self::Lines);
        }
        let config = Config::builder().auto_add_history(true).build();
        let history = MemHistory::with_config(&config);
        let mut editor = Editor::with_history(config, history).map_err(unreadable)?;
        editor.set_helper(Some(Assistance));
        if let Ok(before) = tcgetattr(io::stdin()) {
            let _ = BEFORE.set(before);
        }
        // Best effort, where the system starts no thread.
        let _ = train::signals::before_termination(restore_terminal);
        Ok(Self::Person(Box::new(editor), train::signals::on_interrupt()?))
    }

    pub(super) fn is_person(&self) -> bool {
        matches!(self, Self::Person(..))
    }

    /// The flag that ctrl-C sets while an answer is printed.
    pub(super) fn interrupt(&self) -> Option<Arc<AtomicBool>> {
        match self {
            Self::Person(_, flag) => Some(Arc::clone(flag)),
            Self::Lines => None,
        }
    }

    /// The next line without spaces around it; a person starts from `draft`.
    pub(super) fn line(&mut self, draft: &str) -> Result<Line> {
        match self {
            Self::Person(editor, _) => match editor.readline_with_initial(PROMPT, (draft, "")) {
                Ok(text) => Ok(Line::Text(joined(text.trim()))),
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    Ok(Line::NotText)
                }
                Err(error) => Err(unreadable(error)),
            },
            Self::Lines => {
                let mut line = String::new();
                let n_read = io::stdin().lock().read_line(&mut line).map_err(unreadable)?;
                let text = line.trim().to_owned();
                Ok(if n_read == 0 { Line::End } else { Line::Text(text) })
            }
        }
    }
}

/// Restores the terminal when a signal ends the program while a line is edited.
fn restore_terminal() {
    if let Some(before) = BEFORE.get() {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        let _ = io::stdout().write_all(NO_PASTE_MARKS);
        let _ = io::stdout().flush();
    }
}

/// Lines that end with a backslash, without it.
fn joined(text: &str) -> String {
    text.replace("\\\n", "\n")
}

fn unreadable(error: impl std::fmt::Display) -> Failure {
    Failure::input(format!("cannot read from stdin: {error}"), "type a line of UTF-8 text")
}

/// Help for the editor: it completes names of commands, and a backslash at the end continues a line.
pub(super) struct Assistance;

impl Helper for Assistance {}

impl Completer for Assistance {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..pos).unwrap_or_default();
        let names = NAMES.iter().filter(|name| typed.starts_with('/') && name.starts_with(typed));
        Ok((0, names.map(|name| (*name).to_owned()).collect()))
    }
}

impl Hinter for Assistance {
    type Hint = String;
}

impl Highlighter for Assistance {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        shown(line)
    }
}

/// A line as it is shown. Of pasted control characters the editor removes those of ASCII; some terminals obey the others, too,
/// and some characters reverse the order of the line.
fn shown(line: &str) -> Cow<'_, str> {
    if line.contains(is_unsafe) {
        Cow::Owned(line.replace(is_unsafe, "\u{fffd}"))
    } else {
        Cow::Borrowed(line)
    }
}

impl Validator for Assistance {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if context.input().ends_with('\\') {
            ValidationResult::Incomplete
        } else {
            ValidationResult::Valid(None)
        })
    }
}

#[cfg(test)]
mod tests {
    use rustyline::Context;
    use rustyline::completion::Completer as _;
    use rustyline::history::MemHistory;

    use super::{Assistance, joined, shown};

    #[test]
    fn continued_lines_and_completions() {
        assert_eq!(joined("a\\\nb\nc"), "a\nb\nc");
        let history = MemHistory::new();
        let complete = |line: &str| {
            Assistance.complete(line, line.len(), &Context::new(&history)).unwrap().1.join(",")
        };
        assert_eq!(complete("/re"), "/reset,/retry");
        assert_eq!(complete("re"), "");
    }

    #[test]
    fn pasted_control_characters_are_not_shown() {
        assert_eq!(shown("A\u{9b}31mq\u{80}Z\n\u{a0}é"), "A\u{fffd}31mq\u{fffd}Z\n\u{a0}é");
        assert_eq!(
            shown("a\u{202e}b\u{202a}c\u{2066}d\u{2069}"),
            "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}"
        );
        assert_eq!(shown("plain\ntext"), "plain\ntext");
    }
}
