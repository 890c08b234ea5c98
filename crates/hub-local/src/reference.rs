//! `hf:OWNER/MODEL[@REV][/PATH]` and `hf:datasets/OWNER/NAME[@REV][/PATH]`, as huggingface_hub spells them after `hf://`.

use std::fmt;
use std::path::{Component, Path};

use crate::{Error, Result};

/// Prefix of a reference.
pub const PREFIX: &str = "hf:";
/// Longest owner or name.
const NAME_CHARS: usize = 96;
/// Longest revision.
const REVISION_CHARS: usize = 250;

/// Kind of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

impl Kind {
    /// Word in the hub's addresses: `models` or `datasets`.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }
}

/// A repository on the Hugging Face hub, at a revision, and a path in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Kind of the repository.
    pub kind: Kind,
    /// User or organization.
    pub owner: String,
    /// Name of the model or data set.
    pub name: String,
    /// Branch, tag or commit; `None` for the branch `main`.
    pub revision: Option<String>,
    /// File or directory in the repository, confined to it.
    pub path: Option<String>,
}

impl Reference {
    /// Reads a text that starts with [`PREFIX`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Result<Self>> {
        let body = text.strip_prefix(PREFIX)?;
        let parsed = parse_body(body.strip_prefix("//").unwrap_or(body));
        Some(parsed.map_err(|problem| Error::BadReference { text: text.to_owned(), problem }))
    }

    /// `OWNER/NAME`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// Directory of a copy, relative to the one where models and data sets are: `models/OWNER/NAME`.
    pub fn directory(&self) -> String {
        format!("{}/{}", self.kind.plural(), self.id())
    }

    /// The command that downloads the repository, with the file if the reference names one.
    pub fn get_command(&self) -> String {
        let repository = Self { path: None, ..self.clone() };
        match &self.path {
            Some(path) => format!("temper get {repository} --file {}", quoted(path)),
            None => format!("temper get {repository}"),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        if self.kind == Kind::Dataset {
            f.write_str("datasets/")?;
        }
        write!(f, "{}/{}", self.owner, self.name)?;
        if let Some(revision) = &self.revision {
            let written = if special_ref(revision) == Some(revision.len()) {
                revision.clone()
            } else {
                revision.replace('/', "%2F")
            };
            write!(f, "@{written}")?;
        }
        self.path.as_ref().map_or(Ok(()), |path| write!(f, "/{path}"))
    }
}

/// The command that downloads a path of the form `OWNER/NAME`, which may be meant as a repository.
pub fn get_hint(kind: Kind, path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let prefix = if kind == Kind::Dataset { "datasets/" } else { "" };
    let reference = Reference::parse(&format!("{PREFIX}{prefix}{text}"))?.ok()?;
    // Directories of this project's own layout are not names of owners.
    let is_ours = ["runs", "models", "datasets", "data", "out", "recipes"]
        .contains(&reference.owner.as_str());
    (!is_ours && reference.path.is_none()).then(|| {
        format!(
            "for {} on the Hugging Face hub: `{}`, then `{reference}`",
            noun(kind),
            reference.get_command()
        )
    })
}

fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Model => "a model",
        Kind::Dataset => "a data set",
    }
}

fn parse_body(body: &str) -> std::result::Result<Reference, &'static str> {
    let (kind, body) = match body.split_once('/') {
        Some(("datasets", rest)) => (Kind::Dataset, rest),
        Some(("models", rest)) => (Kind::Model, rest),
        Some(("spaces" | "kernels" | "buckets", _)) => {
            return Err("only models and data sets can be read");
        }
        _ => (Kind::Model, body),
    };
    let (owner, rest) = body.split_once('/').ok_or("it has no `OWNER/`")?;
    let end = rest.find(['/', '@']).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    check_name(owner)?;
    check_name(name)?;
    let (revision, rest) = match rest.strip_prefix('@') {
        Some(rest) => {
            let end = special_ref(rest).or_else(|| rest.find('/')).unwrap_or(rest.len());
            let (revision, rest) = rest.split_at(end);
            (Some(check_revision(&revision.replace("%2F", "/").replace("%2f", "/"))?), rest)
        }
        None => (None, rest),
    };
    let path = match rest.strip_prefix('/') {
        None | Some("") => None,
        Some(path) => Some(check_path(path)?),
    };
    Ok(Reference { kind, owner: owner.to_owned(), name: name.to_owned(), revision, path })
}

/// An owner or a name, by the rules of the hub.
fn check_name(name: &str) -> std::result::Result<(), &'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() {
        return Err("owner or name is empty");
    }
    if name.len() > NAME_CHARS {
        return Err("owner or name is longer than 96 characters");
    }
    if !name.chars().all(is_plain) || !name.starts_with(is_word) || !name.ends_with(is_word) {
        return Err(
            "owner and name are letters, digits, `-`, `_` and `.`, with a letter or digit at both ends",
        );
    }
    if name.contains("--") || name.contains("..") {
        return Err("owner and name have no `--` and no `..`");
    }
    Ok(())
}

/// A branch, tag or commit. It becomes part of a path in the cache, so it is confined.
fn check_revision(revision: &str) -> std::result::Result<String, &'static str> {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+' | '=');
    if revision.is_empty() {
        return Err("the revision after `@` is empty");
    }
    if revision.chars().count() > REVISION_CHARS
        || !revision.chars().all(is_plain)
        || !is_confined(revision)
    {
        return Err("the revision after `@` must be a branch, a tag or a commit");
    }
    Ok(revision.to_owned())
}

fn check_path(path: &str) -> std::result::Result<String, &'static str> {
    if path.chars().any(char::is_control) || !is_confined(path) {
        return Err("the path after the name must stay within the repository");
    }
    Ok(path.to_owned())
}

fn is_confined(path: &str) -> bool {
    let is_name = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.split('/').all(is_name)
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Length of `refs/pr/N` or `refs/convert/NAME` at the start of a text: revisions with slashes that need no escape.
fn special_ref(text: &str) -> Option<usize> {
    let length = |prefix: &str, is_part: fn(char) -> bool| {
        let rest = text.strip_prefix(prefix)?;
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        (end > 0).then_some(prefix.len() + end)
    };
    length("refs/pr/", |c| c.is_ascii_digit()).or_else(|| {
        length("refs/convert/", |c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-'))
    })
}

/// A path as one word of a shell.
fn quoted(path: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if path.chars().all(is_plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}
