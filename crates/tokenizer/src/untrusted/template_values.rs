//! The checks that a rewritten template applies to its values; `template_rewrite` inserts them.

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::bounded;

/// Maximum number of parts of a value: items of lists, keys and values of maps, at all levels.
const PARTS: usize = 100_000;
/// Maximum nesting of lists and maps.
const DEPTH: usize = 64;

/// Maximum number of bytes of all texts in a list or map, each counted as often as it occurs: joining or printing the value
/// writes them. The output of a template may have a quarter of it.
const BYTES: usize = 4 * fsio::limits::TEMPLATE_OUTPUT_BYTES;

/// Bytes of a text that one unit of fuel pays for, as in the engine.
const TEXT_BYTES: usize = 64;

/// Whose texts are paid for when a value is checked.
#[derive(Clone, Copy, PartialEq)]
enum Texts {
    /// Those of keys, which are hashed.
    Keys,
    /// All, for a value that is compared or hashed itself.
    All,
}

/// Checks the limits of `value` and consumes fuel for reading it `times` times: its parts and the bytes of its texts.
pub(crate) fn charge(state: &State, value: &Value, times: usize) -> Result<(), Error> {
    charge_text(state, value, times)?;
    walk(state, value, times, Texts::All, true)
}

/// Consumes fuel for the bytes of a text that is read `times` times.
pub(crate) fn charge_text(state: &State, value: &Value, times: usize) -> Result<(), Error> {
    bounded::spend_render_time().map_err(exhausted)?;
    let units = value.as_str().map_or(0, str::len) / TEXT_BYTES;
    if units == 0 { Ok(()) } else { state.consume_fuel(units.saturating_mul(times) as u64) }
}

/// Checks the limits of `value` and consumes fuel for its parts, and for its texts as `texts` says.
fn walk(
    state: &State,
    value: &Value,
    times: usize,
    texts: Texts,
    namespaces: bool,
) -> Result<(), Error> {
    bounded::spend_render_time().map_err(exhausted)?;
    let mut parts = 0usize;
    let mut bytes = 0usize;
    let mut text_units = 0usize;
    let mut open = vec![(value.clone(), 1usize, texts)];
    while let Some((value, depth, texts)) = open.pop() {
        if depth > 1
            && let Some(text) = value.as_str()
        {
            bytes = bytes.saturating_add(text.len());
            if bytes > BYTES {
                return Err(exhausted(format!(
                    "a value whose texts have more than {BYTES} bytes together"
                )));
            }
            text_units += if texts == Texts::All { text.len() / TEXT_BYTES } else { 0 };
        }
        if !is_container(&value) {
            continue;
        }
        if depth > DEPTH {
            return Err(exhausted(format!("a value of more than {DEPTH} levels")));
        }
        if !namespaces && is_namespace(&value) {
            return Err(exhausted("a namespace inside a namespace".to_owned()));
        }
        let is_map = value.kind() == ValueKind::Map;
        // Values that are not iterable have no parts.
        for item in value.try_iter().into_iter().flatten() {
            parts += 1;
            if parts > PARTS {
                return Err(exhausted(format!("a value of more than {PARTS} parts")));
            }
            if is_map {
                open.push((value.get_item(&item).unwrap_or_default(), depth + 1, texts));
            }
            // A key may be a list or a namespace too. All of it is hashed.
            open.push((item, depth + 1, if is_map { Texts::All } else { texts }));
        }
    }
    let units = (parts / 4 + text_units).saturating_mul(times);
    state.consume_fuel(units as u64)
}

fn is_container(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map)
}

/// Whether a value is a namespace, the only kind of value that can change.
fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("Namespace"))
}

/// Whether the widths in a format string are small: `str.format` pads before it consumes fuel.
pub(crate) fn has_small_widths(format: &str) -> bool {
    let mut open = 0usize;
    let mut digits = 0;
    for c in format.chars() {
        match c {
            '{' => open += 1,
            '}' => open = open.saturating_sub(1),
            _ => {}
        }
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        if open > 1 && c != '{' || open > 0 && digits > 4 {
            return false;
        }
    }
    true
}

/// The error for a value over the limits, of the engine's kind for exhausted fuel.
fn exhausted(reason: String) -> Error {
    Error::new(ErrorKind::OutOfFuel, reason)
}

/// Checks a value that is stored or passed. A lazy list becomes a list, since a part of a part of a list would be read
/// through all of them each time.
fn checked(state: &State, value: Value) -> Result<Value, Error> {
    walk(state, &value, 1, Texts::Keys, true)?;
    Ok(evaluated(value))
}

/// Checks an argument of a call.
fn passed(state: &State, value: Value) -> Result<Value, Error> {
    charge_text(state, &value, 1)?;
    walk(state, &value, 1, Texts::Keys, true)?;
    Ok(value)
}

fn evaluated(value: Value) -> Value {
    let lazy = value.kind() == ValueKind::Iterable && !is_namespace(&value);
    match value.try_iter() {
        Ok(items) if lazy => items.collect(),
        Ok(_) | Err(_) => value,
    }
}

/// Checks a value that is compared or looked up.
fn read(state: &State, value: Value) -> Result<Value, Error> {
    charge(state, &value, 1)?;
    Ok(value)
}

/// Consumes fuel for a text of which a position or a part is read.
fn indexed(state: &State, value: Value) -> Result<Value, Error> {
    charge_text(state, &value, 1)?;
    Ok(value)
}

/// Checks a value for storage in a namespace: printing or comparing a namespace that contains
/// itself would never end.
fn stored(state: &State, value: Value) -> Result<Value, Error> {
    walk(state, &value, 1, Texts::Keys, false)?;
    Ok(evaluated(value))
}

fn length(value: Value) -> Result<Value, Error> {
    let is_list = matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    if is_list && value.len().is_some_and(|n| n > PARTS) {
        return Err(exhausted(format!("a list of more than {PARTS} items")));
    }
    Ok(value)
}

/// Adds the checks to `environment`, as filters and in the tests that compare.
pub(crate) fn install(environment: &mut Environment) {
    environment.add_filter("_checked", checked);
    environment.add_filter("_passed", passed);
    environment.add_filter("_read", read);
    environment.add_filter("_indexed", indexed);
    environment.add_filter("_stored", stored);
    environment.add_filter("_length", length);
    environment.set_formatter(|out, state, value| {
        if is_container(value) {
            walk(state, value, 1, Texts::All, true)?;
        }
        minijinja::escape_formatter(out, state, value)
    });
    // These nest or join lists without checks. Jinja has no `chain` and `zip`, and the others are
    // for page layout.
    for name in ["chain", "zip", "batch", "slice", "groupby"] {
        environment.remove_filter(name);
    }
    environment.remove_global("debug");
    type Comparison = fn(&Value, &Value) -> bool;
    let comparisons: [(&[&str], Comparison); 6] = [
        (&["eq", "equalto", "=="], |a, b| a == b),
        (&["ne", "!="], |a, b| a != b),
        (&["lt", "lessthan", "<"], |a, b| a < b),
        (&["le", "<="], |a, b| a <= b),
        (&["gt", "greaterthan", ">"], |a, b| a > b),
        (&["ge", ">="], |a, b| a >= b),
    ];
    for (names, compare) in comparisons {
        for name in names {
            let test = move |state: &State, a: Value, b: Value| {
                charge(state, &a, 1).map(|()| compare(&a, &b))
            };
            environment.add_test(*name, test);
        }
    }
    environment.add_test("in", |state: &State, a: Value, b: Value| {
        charge(state, &a, b.len().unwrap_or(1))?;
        minijinja::tests::is_in(state, &a, &b)
    });
}
