//! Collects the problems of a recipe and selects the one to report, which explains the most.

use std::fmt::Display;

use crate::error::{Diagnostic, shown};
use crate::location::{Target, leaf};
use crate::spans::Spans;

/// Rank of a problem. An unknown key is often the reason why another key is missing, so it comes
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    UnknownKey,
    WrongValue,
    Missing,
}

/// A problem at a key path.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) rank: Rank,
    pub(crate) path: String,
    pub(crate) target: Target,
    pub(crate) message: String,
    pub(crate) label: String,
    pub(crate) hint: Option<String>,
}

/// Problems found so far.
#[derive(Debug, Default)]
pub(crate) struct Diagnostics {
    list: Vec<Problem>,
}

/// Maximum number of problems that are kept. One is reported, and a hostile file may have many.
const MAX_PROBLEMS: usize = 100;

impl Diagnostics {
    /// Whether no more problems are kept.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= MAX_PROBLEMS
    }

    pub(crate) fn push(&mut self, problem: Problem) {
        if !self.is_full() {
            self.list.push(problem);
        }
    }

    /// A value that breaks a rule. `rule` follows the key's name in the message.
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

    /// A key that conflicts with another key.
    pub(crate) fn conflict(&mut self, path: &str, reason: &str) {
        self.push(Problem {
            rank: Rank::WrongValue,
            path: path.to_owned(),
            target: Target::Key,
            message: format!("{} cannot be used: {reason}", named(path)),
            label: String::new(),
            hint: Some(format!("remove `{}`, or change the keys it conflicts with", leaf(path))),
        });
    }

    /// A key that another key requires.
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

    /// A problem of a whole section.
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

    /// The problem to report: the first one in the file of the highest rank.
    pub(crate) fn first(self, spans: &Spans) -> Option<Diagnostic> {
        let first = self
            .list
            .into_iter()
            .min_by_key(|problem| (problem.rank, spans.order(&problem.path, problem.target)))?;
        Some(spans.diagnostic(&first.path, first.target, first.message, first.label, first.hint))
    }
}

/// Name of a key in messages: `lr` in [pretrain.optimizer].
pub(crate) fn named(path: &str) -> String {
    // An entry of a list keeps the name of the list: `betas[1]` in [sft.optimizer].
    let section = path.rfind('.').and_then(|at| path.get(..at));
    match section {
        Some(section) => format!("`{}` in {}", shown(leaf(path)), bracketed(section)),
        None => format!("`{}`", shown(path)),
    }
}

/// Name of a section in brackets, or `the recipe`.
pub(crate) fn bracketed(section: &str) -> String {
    if section.is_empty() { "the recipe".to_owned() } else { format!("[{}]", shown(section)) }
}
