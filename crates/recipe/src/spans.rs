//! Locations of the keys of a recipe, for the messages of later checks.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, TableLike};

use crate::error::{Diagnostic, Error, Snippet};
use crate::location::{KeyLocation, Target, join, leaf, parent};

/// Locations of the keys and values of a recipe.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    path: PathBuf,
    text: String,
    entries: BTreeMap<String, Entry>,
    overrides: Vec<Overridden>,
}

/// Byte ranges of one key path in the file.
#[derive(Clone, Debug)]
struct Entry {
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
}

/// A key path whose value came from the command line.
#[derive(Clone, Debug)]
pub(crate) struct Overridden {
    pub(crate) key_path: String,
    pub(crate) argument: String,
}

impl Spans {
    pub(crate) fn new(path: &Path, document: &Document<&str>) -> Self {
        let mut spans =
            Self { path: path.to_owned(), text: document.raw().to_owned(), ..Self::default() };
        spans.add_table("", document.as_table());
        spans
    }

    pub(crate) fn set_overrides(&mut self, overrides: Vec<Overridden>) {
        self.overrides = overrides;
    }

    fn add_table(&mut self, path: &str, table: &dyn TableLike) {
        for (name, item) in table.iter() {
            let path = join(path, name);
            let key = table.key(name).and_then(toml_edit::Key::span);
            self.entries.insert(path.clone(), Entry { key, value: item.span() });
            self.add_item(&path, item);
        }
    }

    fn add_item(&mut self, path: &str, item: &Item) {
        if let Some(table) = item.as_table_like() {
            self.add_table(path, table);
        } else if let Some(tables) = item.as_array_of_tables() {
            for (idx, table) in tables.iter().enumerate() {
                let path = format!("{path}[{idx}]");
                self.entries.insert(path.clone(), Entry { key: None, value: table.span() });
                self.add_table(&path, table);
            }
        } else if let Some(array) = item.as_array() {
            self.add_array(path, array);
        }
    }

    fn add_array(&mut self, path: &str, array: &toml_edit::Array) {
        for (idx, value) in array.iter().enumerate() {
            let path = format!("{path}[{idx}]");
            self.entries.insert(path.clone(), Entry { key: None, value: value.span() });
            if let Some(table) = value.as_inline_table() {
                self.add_table(&path, table);
            } else if let Some(array) = value.as_array() {
                self.add_array(&path, array);
            }
        }
    }

    /// Location of a key's value, such as `pretrain.data[0].path`, or of its section if the recipe
    /// does not set the key.
    pub fn location(&self, key_path: &str) -> Option<KeyLocation> {
        self.locate(key_path, Target::Value).map(|(location, _)| location)
    }

    /// Whether the recipe or an override sets this key.
    pub fn is_set(&self, key_path: &str) -> bool {
        self.entries.contains_key(key_path)
            || self.overrides.iter().any(|set| covers(key_path, &set.key_path))
    }

    /// An error about a key's value, in the format of this crate, for checks of other crates.
    pub fn error(
        &self,
        key_path: &str,
        message: impl Into<String>,
        label: impl Into<String>,
        hint: Option<String>,
    ) -> Error {
        Error::Invalid(Box::new(self.diagnostic(
            key_path,
            Target::Value,
            message.into(),
            label.into(),
            hint,
        )))
    }

    pub(crate) fn diagnostic(
        &self,
        key_path: &str,
        target: Target,
        message: String,
        label: String,
        hint: Option<String>,
    ) -> Diagnostic {
        let (location, snippet) = self.locate(key_path, target).unzip();
        let message = match &location {
            Some(_) => message,
            None => format!("{}: {message}", self.path.display()),
        };
        Diagnostic { message, location, snippet, label, hint, others: Vec::new() }
    }

    /// Location and snippet of a byte range of the file.
    pub(crate) fn at_bytes(path: &Path, text: &str, span: Range<usize>) -> (KeyLocation, Snippet) {
        let start = floor_char(text, span.start);
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end =
            text.get(start..).and_then(|rest| rest.find('\n')).map_or(text.len(), |at| start + at);
        let line = text.get(line_start..line_end).unwrap_or_default();
        let number = before.matches('\n').count() + 1;
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        let end = floor_char(text, span.end).min(line_end);
        let snippet =
            Snippet::new(Some(number), line, start - line_start, end.max(start) - line_start);
        (KeyLocation::File { path: path.to_owned(), line: number, column }, snippet)
    }

    /// Sort key of locations: by position in the file, then the command line.
    pub(crate) fn order(&self, key_path: &str, target: Target) -> usize {
        if self.overridden(key_path).is_some() {
            return usize::MAX;
        }
        self.range(key_path, target).map_or(0, |range| range.start)
    }

    fn locate(&self, key_path: &str, target: Target) -> Option<(KeyLocation, Snippet)> {
        if let Some(set) = self.overridden(key_path) {
            return Some(at_override(&set.argument, key_path, target));
        }
        let range = self.range(key_path, target)?;
        Some(Self::at_bytes(&self.path, &self.text, range))
    }

    /// The override that sets this key: the last one of the key or of a table around it, or, if the
    /// file lacks the key, of a key within it.
    fn overridden(&self, key_path: &str) -> Option<&Overridden> {
        let mut sets = self.overrides.iter().rev();
        sets.clone().find(|set| covers(key_path, &set.key_path)).or_else(|| {
            let in_file = self.entries.contains_key(key_path) || key_path.is_empty();
            (!in_file).then(|| sets.find(|set| covers(&set.key_path, key_path))).flatten()
        })
    }

    /// Byte range of the key, or of the nearest section around it.
    fn range(&self, key_path: &str, target: Target) -> Option<Range<usize>> {
        let mut path = key_path;
        loop {
            if let Some(entry) = self.entries.get(path) {
                let whole = path.len() == key_path.len();
                let (first, second) = match target {
                    Target::Value if whole => (&entry.value, &entry.key),
                    Target::Value | Target::Key => (&entry.key, &entry.value),
                };
                return first.clone().or_else(|| second.clone());
            }
            path = parent(path)?;
        }
    }
}

/// Whether `inner` is `outer` or within it.
fn covers(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn at_override(argument: &str, key_path: &str, target: Target) -> (KeyLocation, Snippet) {
    const COMMAND: &str = "--set ";
    let equals = argument.find('=').unwrap_or(argument.len());
    let name = leaf(key_path);
    let range = match target {
        Target::Value => (equals + 1).min(argument.len())..argument.len(),
        Target::Key => match argument.find(name) {
            Some(at) if !name.is_empty() => at..at + name.len(),
            _ => 0..equals,
        },
    };
    let line = format!("{COMMAND}{argument}");
    let snippet = Snippet::new(None, &line, range.start + COMMAND.len(), range.end + COMMAND.len());
    (KeyLocation::Override { argument: argument.to_owned() }, snippet)
}

/// Start of the character that contains this byte.
fn floor_char(text: &str, byte: usize) -> usize {
    text.floor_char_boundary(byte.min(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(text: &str) -> Spans {
        Spans::new(Path::new("r.toml"), &Document::parse(text).unwrap())
    }

    #[test]
    fn keys_values_lists_and_sections_have_locations() {
        let spans = spans("seed = 1\n[a]\nb = [{ c = 2 }, { c = 33 }]\n[[d]]\n[[d]]\ne.f = 4\n");
        let at = |path: &str| spans.location(path).map(|location| location.to_string());
        assert_eq!(at("seed").as_deref(), Some("r.toml:1:8"));
        assert_eq!(at("a.b[1].c").as_deref(), Some("r.toml:3:23"));
        assert_eq!(at("a.b[1].left_out").as_deref(), Some("r.toml:3:17"));
        assert_eq!(at("d[1].e.f").as_deref(), Some("r.toml:6:7"));
        assert_eq!(at("a.left_out").as_deref(), Some("r.toml:2:2"));
        assert_eq!(at("nowhere"), None);
    }

    #[test]
    fn paths_have_parents_and_leaves() {
        assert_eq!(parent("a.b[0].c"), Some("a.b[0]"));
        assert_eq!(parent("a.b[0]"), Some("a.b"));
        assert_eq!(parent("a"), None);
        assert_eq!(leaf("a.b[0].c"), "c");
        assert!(covers("a.b[0]", "a.b") && covers("a", "a") && !covers("ab", "a"));
    }
}
