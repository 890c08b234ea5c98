//! Methods and filters that templates of tasks may use, with the results of Python's.
//!
//! Templates come from files that someone else may have written. No function returns a text of more than [`TEXT_BYTES`], and
//! there are no variables and no loops, so one evaluation takes bounded time and memory.

use std::collections::HashSet;

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, Value};

use crate::pattern::Pattern;
use crate::python_text::{capitalize, trim, trim_end};

/// Maximum size of a text that a function or a template returns.
pub(crate) const TEXT_BYTES: usize = 1 << 24;
/// Work of compiling a pattern, in the engine's units.
const COMPILING_FUEL: u64 = 1000;
/// Maximum work of one evaluation, in the engine's units.
const FUEL: u64 = 1_000_000;

/// An environment with nothing but these functions. Values that a row does not have are errors.
pub(crate) fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(64);
    environment.set_debug(false);
    environment.set_unknown_method_callback(method);
    for name in ["trim", "lower", "upper", "capitalize", "replace"] {
        environment.add_filter(name, move |value: &Value, args: Rest<Value>| {
            let name = if name == "trim" { "strip" } else { name };
            text_method(&text_of(value)?, name, &args)
        });
    }
    environment.add_filter("regex_replace", regex_replace);
    environment.add_filter("join", |list: &Value, by: Option<Value>| {
        let by = by.map_or(Ok(String::new()), |by| text_of(&by))?;
        join(&by, list)
    });
    environment.add_filter("int", int);
    environment.add_filter("string", printed);
    environment
        .add_filter("length", |value: &Value| value.len().ok_or_else(|| wrong("has no length")));
    environment.add_filter("first", |value: &Value| at(value, 0));
    environment.add_filter("last", |value: &Value| at(value, -1));
    environment.add_filter("map", minijinja::filters::map);
    environment.add_filter("list", minijinja::filters::list);
    environment
}

fn wrong(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

fn text_of(value: &Value) -> Result<String, Error> {
    value.as_str().map(str::to_owned).ok_or_else(|| wrong(format!("not a text: {}", value.kind())))
}

/// A value as Jinja prints it: `True`, `False` and `None` as in Python. Lists and objects have no text.
pub(crate) fn printed(value: &Value) -> Result<String, Error> {
    let kind = value.kind();
    if kind == ValueKind::Bool {
        Ok(if value.is_true() { "True" } else { "False" }.to_owned())
    } else if kind == ValueKind::None {
        Ok("None".to_owned())
    } else if matches!(kind, ValueKind::Number | ValueKind::String) {
        Ok(value.to_string())
    } else {
        Err(wrong(format!("a text is needed, but this is a {kind}")))
    }
}

fn at(value: &Value, idx: i64) -> Result<Value, Error> {
    let items: Vec<Value> = value.try_iter()?.collect();
    let item = if idx < 0 { items.last() } else { items.first() };
    item.cloned().ok_or_else(|| wrong("the list is empty"))
}

/// `int(value)`: a number, or a text with one.
fn int(value: &Value) -> Result<i64, Error> {
    let kind = value.kind();
    if kind == ValueKind::Bool {
        return Ok(i64::from(value.is_true()));
    }
    if kind == ValueKind::Number {
        return i64::try_from(value.clone())
            .map_err(|_| wrong(format!("not a whole number: `{value}`")));
    }
    let text = text_of(value)?;
    trim(&text).parse().map_err(|_| wrong(format!("not a whole number: `{text}`")))
}

/// `re.sub(pattern, by, text)`, where `by` is plain text.
fn regex_replace(state: &State, value: &Value, pattern: &str, by: &str) -> Result<String, Error> {
    // Compiling takes time, and `map` compiles for each item.
    state.consume_fuel(COMPILING_FUEL + pattern.len() as u64)?;
    let pattern = Pattern::new(pattern).map_err(wrong)?;
    pattern.replace(&text_of(value)?, by, TEXT_BYTES).ok_or_else(too_long)
}

fn too_long() -> Error {
    wrong(format!("a text of more than {TEXT_BYTES} bytes"))
}

fn join(by: &str, list: &Value) -> Result<String, Error> {
    let mut text = String::new();
    for (idx, item) in list.try_iter()?.enumerate() {
        if idx > 0 {
            text += by;
        }
        text += &printed(&item)?;
        if text.len() > TEXT_BYTES {
            return Err(too_long());
        }
    }
    Ok(text)
}

fn method(_: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        return text_method(text, name, args);
    }
    match (value.kind(), name, args) {
        (ValueKind::Seq | ValueKind::Iterable, "index", [wanted]) => {
            let found = value.try_iter()?.position(|item| &item == wanted);
            let found = found.ok_or_else(|| wrong(format!("`{wanted}` is not in the list")))?;
            Ok(Value::from(found))
        }
        (ValueKind::Map, "get", [key]) => {
            let found = value.get_item(key)?;
            Ok(if found.is_undefined() { Value::from(()) } else { found })
        }
        _ => Err(unknown_method(name)),
    }
}

fn unknown_method(name: &str) -> Error {
    let known = "capitalize, endswith, index, join, lower, lstrip, replace, rstrip, split, startswith, strip, upper";
    Error::new(ErrorKind::UnknownMethod, format!("`{name}`; known methods: {known}"))
}

/// A method of Python's `str`.
fn text_method(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let strip_set = |args: &[Value]| -> Result<Option<HashSet<char>>, Error> {
        args.first().map(|set| Ok(text_of(set)?.chars().collect())).transpose()
    };
    let is_in = |set: &Option<HashSet<char>>, c: char| match set {
        Some(set) => set.contains(&c),
        None => crate::python_text::is_space(c),
    };
    Ok(match (name, args) {
        ("lower", []) => Value::from(text.to_lowercase()),
        ("upper", []) => Value::from(text.to_uppercase()),
        ("capitalize", []) => Value::from(capitalize(text)),
        ("strip", []) => Value::from(trim(text)),
        ("rstrip", []) => Value::from(trim_end(text)),
        ("strip", [_]) => {
            let set = strip_set(args)?;
            Value::from(text.trim_matches(|c| is_in(&set, c)))
        }
        ("rstrip", [_]) => {
            let set = strip_set(args)?;
            Value::from(text.trim_end_matches(|c| is_in(&set, c)))
        }
        ("lstrip", [] | [_]) => {
            let set = strip_set(args)?;
            Value::from(text.trim_start_matches(|c| is_in(&set, c)))
        }
        ("startswith", [with]) => Value::from(text.starts_with(&text_of(with)?)),
        ("endswith", [with]) => Value::from(text.ends_with(&text_of(with)?)),
        ("index", [wanted]) => {
            let at = text.find(&text_of(wanted)?);
            let at = at.ok_or_else(|| wrong(format!("`{wanted}` is not in the text")))?;
            Value::from(text.get(..at).unwrap_or_default().chars().count())
        }
        ("replace", [from, to]) => {
            let (from, to) = (text_of(from)?, text_of(to)?);
            let n = text.matches(&from).count();
            if text.len() + n * to.len() > TEXT_BYTES {
                return Err(too_long());
            }
            Value::from(text.replace(&from, &to))
        }
        ("join", [list]) => Value::from(join(text, list)?),
        ("split", []) => {
            let pieces = text.split(crate::python_text::is_space).filter(|piece| !piece.is_empty());
            pieces.map(Value::from).collect()
        }
        ("split", [by] | [by, _]) => {
            let by = text_of(by)?;
            if by.is_empty() {
                return Err(wrong("`split` needs a separator that is not empty"));
            }
            let most = args.get(1).map(int).transpose()?.and_then(|n| usize::try_from(n).ok());
            match most {
                Some(most) => text.splitn(most + 1, &by).map(Value::from).collect(),
                None => text.split(&by).map(Value::from).collect(),
            }
        }
        _ => return Err(unknown_method(name)),
    })
}
