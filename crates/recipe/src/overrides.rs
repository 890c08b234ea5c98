//! `--set key=value`: changes the TOML document of a recipe and keeps its comments. The result is
//! checked like any recipe.

use fsio::limits::RECIPE_DEPTH;
use toml_edit::{Decor, DocumentMut, InlineTable, Item, Table, Value};

use crate::depth;
use crate::error::{Error, Result, shown};
use crate::location::join;
use crate::schema_tree::{self, Node};
use crate::spans::Overridden;
use crate::toml_value::TomlValue;

/// Applies overrides in order. A later override of a key replaces an earlier one.
pub(crate) fn apply(
    document: &mut DocumentMut,
    overrides: &[(String, String)],
) -> Result<Vec<Overridden>> {
    let mut applied = Vec::new();
    for (key, text) in overrides {
        let argument = format!("{key}={text}");
        let in_section = with_section(document, key);
        let key = in_section.as_deref().unwrap_or(key);
        let key_path = apply_one(document, key, text).map_err(|Refusal { reason, hint }| {
            Error::Override { argument: shown(&argument), reason, hint }
        })?;
        applied.push(Overridden { key_path, argument });
    }
    Ok(applied)
}

/// The key with its section, if it is written without one and exactly one section of the recipe can have it.
fn with_section(document: &DocumentMut, key: &str) -> Option<String> {
    let first = key.split(['.', '[']).next()?.trim();
    let recipe = schema_tree::recipe();
    if recipe.key(first).is_some() {
        return None;
    }
    let has_key = |section: &&str| {
        let node = recipe.key(section).map(|section| &section.node);
        let tables = match node {
            Some(Node::Table(table)) => vec![table],
            Some(Node::Choice { variants, .. }) => variants.iter().map(|v| &v.table).collect(),
            _ => Vec::new(),
        };
        tables.iter().any(|table| table.key(first).is_some())
    };
    let sections = document.iter().filter(|(_, item)| item.is_table_like()).map(|(name, _)| name);
    let mut sections = sections.filter(has_key);
    match (sections.next(), sections.next()) {
        (Some(only), None) => Some(format!("{only}.{key}")),
        (None, _) | (Some(_), Some(_)) => None,
    }
}

/// Shortens warm-ups and decays that no longer fit a stage whose `max_steps` was overridden; returns a sentence for each.
///
/// A short trial of a recipe needs no further change. Values that are overridden themselves are not changed.
pub(crate) fn shorten_warmups(
    document: &mut DocumentMut,
    overridden: &[Overridden],
) -> Vec<String> {
    let mut notes = Vec::new();
    for Overridden { key_path, .. } in overridden {
        let Some(section) = key_path.strip_suffix(".max_steps") else { continue };
        let is_own = |key: &str| {
            let path = format!("{section}.schedule.{key}");
            overridden.iter().any(|other| other.key_path == path)
        };
        let Some(table) = document.get_mut(section).and_then(Item::as_table_like_mut) else {
            continue;
        };
        let Some(n_steps) = table.get("max_steps").and_then(Item::as_integer) else { continue };
        let Some(schedule) = table.get_mut("schedule").and_then(Item::as_table_like_mut) else {
            continue;
        };
        let value =
            |key: &str| schedule.get(key).and_then(Item::as_integer).filter(|steps| *steps > 0);
        let (warmup, decay) = (value("warmup_steps"), value("decay_steps"));
        let sum = warmup.unwrap_or(0).saturating_add(decay.unwrap_or(0));
        if value("total_steps").is_some() || n_steps < 1 || sum <= n_steps {
            continue;
        }
        for (key, steps) in [("warmup_steps", warmup), ("decay_steps", decay)] {
            let Some(steps) = steps.filter(|_| !is_own(key)) else { continue };
            let fewer =
                i64::try_from(i128::from(steps) * i128::from(n_steps) / i128::from(sum) / 2)
                    .unwrap_or(0);
            if let Some(Item::Value(old)) = schedule.get_mut(key) {
                replace(old, Value::from(fewer));
                notes.push(format!(
                    "{key} of [{section}] is {fewer} in place of {steps}, because max_steps is {n_steps}"
                ));
            }
        }
    }
    notes
}

/// Why an override cannot be applied.
struct Refusal {
    reason: String,
    hint: String,
}

impl Refusal {
    fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: hint.into() }
    }
}

/// A step of a key path.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    /// An entry of a list.
    Index(usize),
}

fn apply_one(
    document: &mut DocumentMut,
    key: &str,
    text: &str,
) -> std::result::Result<String, Refusal> {
    let steps = steps(key)?;
    let value = parse_value(text)?;
    let Some((last, parents)) = steps.split_last() else {
        return Err(bad_key());
    };
    let mut path = String::new();
    let mut item = document.as_item_mut();
    for step in parents {
        item = enter(item, step, &mut path)?;
    }
    set(item, last, value, &mut path)?;
    Ok(path)
}

/// Splits a key path. `a.b[0].c` and `a.b.0.c` are equal.
fn steps(key: &str) -> std::result::Result<Vec<Step>, Refusal> {
    let dotted = key.replace('[', ".").replace(']', "");
    let steps: Vec<Step> = dotted
        .split('.')
        .map(str::trim)
        .map(|name| name.parse().map_or_else(|_| Step::Name(name.to_owned()), Step::Index))
        .collect();
    let is_bad = |step: &Step| matches!(step, Step::Name(name) if name.is_empty() || name.contains(['"', '\'']));
    if steps.len() > RECIPE_DEPTH
        || steps.iter().any(is_bad)
        || matches!(steps.first(), Some(Step::Index(_)))
    {
        return Err(bad_key());
    }
    Ok(steps)
}

fn bad_key() -> Refusal {
    Refusal::new(
        "not a key",
        "examples: `--set sft.optimizer.lr=1e-4`, `--set sft.data[0].limit=100`",
    )
}

/// A TOML value, or the text itself if it is not valid TOML.
fn parse_value(text: &str) -> std::result::Result<Value, Refusal> {
    if depth::too_deep(&format!("value = {text}"), RECIPE_DEPTH).is_some() {
        return Err(Refusal::new(
            format!("the value is nested more than {RECIPE_DEPTH} levels deep"),
            "edit the recipe instead",
        ));
    }
    Ok(text.trim().parse().unwrap_or_else(|_| Value::from(text)))
}

/// Follows one step. A missing table is created.
fn enter<'d>(
    item: &'d mut Item,
    step: &Step,
    path: &mut String,
) -> std::result::Result<&'d mut Item, Refusal> {
    let at_top = path.is_empty();
    let before = path.clone();
    let kind = TomlValue::of(item).kind();
    match step {
        Step::Index(idx) => {
            let n = n_entries(item);
            *path = format!("{path}[{idx}]");
            item.get_mut(*idx).ok_or_else(|| no_entry(&before, *idx, n))
        }
        Step::Name(name) => {
            *path = join(path, name);
            let is_section = item.is_table();
            let table = item.as_table_like_mut().ok_or_else(|| no_table(&before, kind))?;
            let missing = || {
                if is_section && at_top {
                    Item::Table(Table::new())
                } else {
                    Item::Value(Value::InlineTable(InlineTable::new()))
                }
            };
            Ok(table.entry(name).or_insert_with(missing))
        }
    }
}

fn set(
    item: &mut Item,
    step: &Step,
    value: Value,
    path: &mut String,
) -> std::result::Result<(), Refusal> {
    let before = path.clone();
    let kind = TomlValue::of(item).kind();
    match step {
        Step::Index(idx) => {
            let n = n_entries(item);
            *path = format!("{path}[{idx}]");
            if let Some(tables) = item.as_array_of_tables_mut() {
                let Value::InlineTable(inline) = value else {
                    return Err(Refusal::new(
                        format!("`{before}` is a list of tables"),
                        "write a table: `{ key = value }`",
                    ));
                };
                let table = tables.get_mut(*idx).ok_or_else(|| no_entry(&before, *idx, n))?;
                let decor = table.decor().clone();
                *table = inline.into_table();
                *table.decor_mut() = decor;
                return Ok(());
            }
            let old = item
                .get_mut(*idx)
                .and_then(Item::as_value_mut)
                .ok_or_else(|| no_entry(&before, *idx, n))?;
            replace(old, value);
        }
        Step::Name(name) => {
            *path = join(path, name);
            let table = item.as_table_like_mut().ok_or_else(|| no_table(&before, kind))?;
            match table.get_mut(name) {
                Some(Item::Value(old)) => replace(old, value),
                Some(other) => *other = Item::Value(value),
                None => insert(item, name, value),
            }
        }
    }
    Ok(())
}

/// Adds a key at the end of a table. In `{ … }`, the space before the bracket is kept.
fn insert(item: &mut Item, name: &str, mut value: Value) {
    if let Some(inline) = item.as_inline_table_mut()
        && let Some((_, last)) = inline.iter_mut().last()
    {
        let suffix = last.decor().suffix().cloned().unwrap_or_default();
        last.decor_mut().set_suffix("");
        *value.decor_mut() = Decor::new(" ", suffix);
    }
    if let Some(table) = item.as_table_like_mut() {
        table.insert(name, Item::Value(value));
    }
}

/// Replaces a value and keeps the space and the comment around it.
fn replace(old: &mut Value, mut new: Value) {
    *new.decor_mut() = old.decor().clone();
    *old = new;
}

fn n_entries(item: &Item) -> Option<usize> {
    item.as_array()
        .map(toml_edit::Array::len)
        .or_else(|| item.as_array_of_tables().map(toml_edit::ArrayOfTables::len))
}

fn no_entry(path: &str, idx: usize, n: Option<usize>) -> Refusal {
    let path = shown(path);
    match n {
        Some(n) => Refusal::new(
            format!("`{path}` has no entry {idx}"),
            format!("it has {n} entries, numbered from 0"),
        ),
        None => Refusal::new(
            format!("`{path}` is not a list"),
            format!("`{path}[{idx}]` is an entry of a list"),
        ),
    }
}

fn no_table(path: &str, kind: &str) -> Refusal {
    let path = shown(path);
    Refusal::new(format!("`{path}` has no keys: it is {kind}"), format!("set `{path}` itself"))
}
