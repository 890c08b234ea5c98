//! Collects the problems of a recipe and selects those to report, which explain the most.

use std::fmt::Display;

use crate::error::{Diagnostic, shown};
use crate::location::{KeyLocation, Target, leaf};
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

/// Maximum number of problems that are kept: a hostile file may have many.
const MAX_PROBLEMS: usize = 100;
/// Number of problems that are reported beside the first.
const OTHERS: usize = 16;

impl Problem {
    /// The problem in one line, with its line in the file.
    fn line(self, spans: &Spans) -> String {
        let Self { rank, path, target, message, label, hint } = self;
        let diagnostic = spans.diagnostic(&path, target, message, label, hint);
        let place = match &diagnostic.location {
            Some(KeyLocation::File { line, .. }) => format!("line {line}: "),
            Some(KeyLocation::Override { .. }) => "the command line: ".to_owned(),
            None => String::new(),
        };
        let advice = [diagnostic.label, diagnostic.hint.unwrap_or_default()];
        let advice = advice.into_iter().find(|text| !text.is_empty());
        // The hint of a missing key starts with its name, which the message has.
        let advice = advice.map(|text| match text.split_once("`: ") {
            Some((_, text)) if rank == Rank::Missing => format!(" ({text})"),
            _ => format!(" ({text})"),
        });
        let advice = advice.unwrap_or_default();
        format!("{place}{}{advice}", diagnostic.message)
    }
}

impl Diagnostics {
    /// Whether there is no problem.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

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

    /// The problems of the highest rank: the first one in the file with its place, and the others.
    pub(crate) fn report(mut self, spans: &Spans) -> Option<Diagnostic> {
        self.list.sort_by_key(|problem| {
            (problem.rank, spans.order(&problem.path, problem.target), problem.message.clone())
        });
        self.list.dedup_by(|a, b| a.path == b.path && a.message == b.message);
        let mut problems = self.list.into_iter();
        let first = problems.next()?;
        let others: Vec<Problem> = problems.take_while(|other| other.rank == first.rank).collect();
        let n_unlisted = others.len().saturating_sub(OTHERS);
        let mut others: Vec<String> =
            others.into_iter().take(OTHERS).map(|other| other.line(spans)).collect();
        if n_unlisted > 0 {
            others.push(format!("{n_unlisted} more"));
        }
        let Problem { path, target, message, label, hint, .. } = first;
        Some(Diagnostic { others, ..spans.diagnostic(&path, target, message, label, hint) })
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
