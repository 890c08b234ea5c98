//! Reads a recipe: checks limits, parses TOML, applies overrides, checks keys and types. Opens no
//! other file.

use std::path::{Path, PathBuf};

use fsio::limits::{RECIPE_BYTES, RECIPE_DEPTH};
use toml_edit::Document;

use crate::diagnostics::Diagnostics;
use crate::error::{Diagnostic, Error, Result};
use crate::spans::Spans;
use crate::text_format::is_run_name;
use crate::{Recipe, depth, missing, overrides, validate};

/// A checked recipe, with the locations of its keys.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Recipe with overrides applied.
    pub recipe: Recipe,
    /// Name of the run: the recipe's `name`, or the file name without `.toml`.
    pub name: String,
    /// Recipe as TOML, with overrides applied and comments kept.
    pub resolved_toml: String,
    /// File of the recipe.
    pub path: PathBuf,
    /// Locations of the keys.
    pub spans: Spans,
    /// Consequences of the overrides, as sentences for the user.
    pub notes: Vec<String>,
}

impl Loaded {
    /// Directory that relative paths of the recipe start from.
    pub fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

/// Reads and checks a recipe; `overrides` are `--set` keys and values, in order.
///
/// # Errors
/// A mistake in the file, a key or an override. Of several, the one that explains the most.
pub fn load(path: &Path, overrides: &[(String, String)]) -> Result<Loaded> {
    let bytes = fsio::read_capped(path, RECIPE_BYTES)?;
    parse(&bytes, path, overrides)
}

/// Checks a recipe's bytes as `load` does; `path` names it in messages.
///
/// # Errors
/// A mistake in the text, a key or an override. Of several, the one that explains the most.
pub fn parse(bytes: &[u8], path: &Path, set: &[(String, String)]) -> Result<Loaded> {
    let text = decode(bytes, path)?;
    check_depth(text, path)?;
    let document = Document::parse(text).map_err(|error| syntax(path, text, &error))?;
    let mut spans = Spans::new(path, &document);
    let mut document = document.into_mut();
    let overridden = overrides::apply(&mut document, set)?;
    let notes = overrides::shorten_warmups(&mut document, &overridden);
    spans.set_overrides(overridden);

    let mut diagnostics = Diagnostics::default();
    validate::validate(document.as_table(), &mut diagnostics);
    if !diagnostics.is_empty() {
        missing::report(document.as_table(), &mut diagnostics);
    }
    invalid(diagnostics, &spans)?;
    let resolved_toml = if set.is_empty() { text.to_owned() } else { document.to_string() };
    let recipe: Recipe =
        toml_edit::de::from_str(&resolved_toml).map_err(|error| unforeseen(path, &error))?;
    let mut diagnostics = Diagnostics::default();
    recipe.check(&mut diagnostics);
    let name = run_name(&recipe, path, &mut diagnostics);
    invalid(diagnostics, &spans)?;
    Ok(Loaded { recipe, name, resolved_toml, path: path.to_owned(), spans, notes })
}

fn decode<'t>(bytes: &'t [u8], path: &Path) -> Result<&'t str> {
    if bytes.len() as u64 > RECIPE_BYTES {
        return Err(fsio::Error::TooLarge { path: path.to_owned(), limit: RECIPE_BYTES }.into());
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let (good, bad) = bytes.split_at(error.valid_up_to());
        let good = String::from_utf8_lossy(good);
        Error::NotUtf8 {
            path: path.to_owned(),
            line: good.matches('\n').count() + 1,
            column: good.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1,
            byte: bad.first().copied().unwrap_or_default(),
        }
    })
}

fn check_depth(text: &str, path: &Path) -> Result<()> {
    let Some(span) = depth::too_deep(text, RECIPE_DEPTH) else { return Ok(()) };
    let (location, snippet) = Spans::at_bytes(path, text, span);
    Err(Error::Syntax(Box::new(Diagnostic {
        message: format!("the recipe is nested more than {RECIPE_DEPTH} levels deep"),
        location: Some(location),
        snippet: Some(snippet),
        label: String::new(),
        hint: Some("no key is nested so deeply; a closing bracket may be missing".to_owned()),
        others: Vec::new(),
    })))
}

fn syntax(path: &Path, text: &str, error: &toml_edit::TomlError) -> Error {
    let (location, snippet) = error.span().map(|span| Spans::at_bytes(path, text, span)).unzip();
    let message = error.message().trim();
    Error::Syntax(Box::new(Diagnostic {
        message: format!("the recipe is not valid TOML: {}", crate::error::shown(message)),
        location,
        snippet,
        label: String::new(),
        hint: Some(
            "a line is `key = value`, `[section]` or `# comment`; strings are in quotes".to_owned(),
        ),
        others: Vec::new(),
    }))
}

fn invalid(diagnostics: Diagnostics, spans: &Spans) -> Result<()> {
    diagnostics.report(spans).map_or(Ok(()), |diagnostic| Err(Error::Invalid(Box::new(diagnostic))))
}

/// Error of serde in a recipe that passed the checks. A test over the schema prevents this.
fn unforeseen(path: &Path, error: &toml_edit::de::Error) -> Error {
    Error::Invalid(Box::new(Diagnostic {
        message: format!("{}: {}", path.display(), crate::error::shown(error.message())),
        location: None,
        snippet: None,
        label: String::new(),
        hint: Some("docs/recipe.md lists all keys".to_owned()),
        others: Vec::new(),
    }))
}

/// Name of the run: the recipe's `name`, or its file name.
fn run_name(recipe: &Recipe, path: &Path, diagnostics: &mut Diagnostics) -> String {
    if let Some(name) = &recipe.name {
        return name.clone();
    }
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if !is_run_name(&stem) {
        diagnostics.section(
            "",
            &format!("the file name is not a valid run name: `{}`", crate::error::shown(&stem)),
            "add `name = \"…\"` at the top of the recipe",
        );
    }
    stem
}
