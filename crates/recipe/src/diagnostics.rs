//! A list of what is wrong, of which the reader sees the one that explains the most. Finds nothing
//! itself.

use std::fmt::Display;

use crate::error::{Diagnostic, shown};
use crate::location::{Target, leaf};
use crate::spans::Spans;

/// How much a problem explains: an unknown key is often the reason why another one is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    UnknownKey,
    WrongValue,
    Missing,
}

/// Something wrong at a key path.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) rank: Rank,
    pub(crate) path: String,
    pub(crate) target: Target,
    pub(crate) message: String,
    pub(crate) label: String,
    pub(crate) hint: Option<String>,
}

/// Everything found wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Diagnostics {
    list: Vec<Problem>,
}

/// The most diagnostics that are kept: one is shown, and a hostile file may have a hundred thousand.
const MAX_PROBLEMS: usize = 100;

impl Diagnostics {
    /// Whether looking for more is a waste of time.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= MAX_PROBLEMS
    }

    pub(crate) fn push(&mut self, problem: Problem) {
        if !self.is_full() {
            self.list.push(problem);
        }
    }

    /// A value that breaks a rule of its own or of its section: `rule` reads on after the key's
    /// name.
    pub(crate) fn value(&mut self, path: &str, rule: &str, value: impl Display) {
        self.push(Problem {
            rank: Rank::WrongValue,
            path: path.to_owned(),
            target: Target::Value,
            message: format!("{} {rule}: `{}`", named(path), shown(&value.to_string())),
            label: String::new(),
            hint: None,
        });
    }

    /// A key that contradicts another one, or means nothing beside it.
    pub(crate) fn conflict(&mut self, path: &str, reason: &str) {
        self.push(Problem {
            rank: Rank::WrongValue,
            path: path.to_owned(),
            target: Target::Key,
            message: format!("{} does not fit: {reason}", named(path)),
            label: String::new(),
            hint: Some(format!("leave `{}` out, or change what it contradicts", leaf(path))),
        });
    }

    /// A key that the section needs because of another key.
    pub(crate) fn missing(&mut self, section: &str, key: &str, reason: &str) {
        self.push(Problem {
            rank: Rank::Missing,
            path: section.to_owned(),
            target: Target::Key,
            message: format!("missing key `{key}` in {}", bracketed(section)),
            label: reason.to_owned(),
            hint: None,
        });
    }

    /// Something wrong with a whole section.
    pub(crate) fn section(&mut self, section: &str, message: &str, hint: &str) {
        self.push(Problem {
            rank: Rank::Missing,
            path: section.to_owned(),
            target: Target::Key,
            message: message.to_owned(),
            label: String::new(),
            hint: Some(hint.to_owned()),
        });
    }

    /// The problem to show: of those that explain the most, the first one in the file.
    pub(crate) fn first(self, spans: &Spans) -> Option<Diagnostic> {
        let first = self
            .list
            .into_iter()
            .min_by_key(|problem| (problem.rank, spans.order(&problem.path, problem.target)))?;
        Some(spans.diagnostic(&first.path, first.target, first.message, first.label, first.hint))
    }
}

/// `lr` of [pretrain.optimizer], as messages name it.
pub(crate) fn named(path: &str) -> String {
    // An entry of a list is named with its list: `betas[1]` in [sft.optimizer].
    let section = path.rfind('.').and_then(|at| path.get(..at));
    match section {
        Some(section) => format!("`{}` in {}", shown(leaf(path)), bracketed(section)),
        None => format!("`{}`", shown(path)),
    }
}

/// A section's name in brackets; the recipe itself for none.
pub(crate) fn bracketed(section: &str) -> String {
    if section.is_empty() { "the recipe".to_owned() } else { format!("[{}]", shown(section)) }
}
