//! Recipe changes that a resumed run accepts: those that leave the training trajectory unchanged.
//!
//! Two resolved recipes are compared as trees, key by key, without the recipe's types, so that new keys are covered as they
//! are added.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Differences between the recipe of a run and a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Changes of the trajectory, one line each. The run is not resumed.
    pub refused: Vec<String>,
    /// Changes that keep the mathematics and may change the last bits.
    pub tolerated: Vec<String>,
}

/// Keys of a stage that control saving and logging.
const FREE: [&str; 8] = [
    "save_every_steps",
    "save_every_minutes",
    "keep_checkpoints",
    "log_every_steps",
    "sample_prompts",
    "sample_every_steps",
    "sample_max_new_tokens",
    "sample_temperature",
];
/// Keys that set the length of a stage.
const LENGTH: [&str; 3] = ["max_steps", "epochs", "max_tokens"];
/// Keys that change only the order of summation.
const BITS_ONLY: [&str; 5] =
    ["micro_batch", "checkpointing", "device", "replicas", "deterministic"];
/// Recipe keys that every stage depends on.
const COMMON: [&str; 7] =
    ["seed", "device", "replicas", "precision", "deterministic", "tokenizer", "model"];

/// Compares the parts of two recipes that one stage depends on: the common keys, its own section, and the sections of the
/// stages that it starts from.
pub fn differences(old: &Value, new: &Value, stage: &str) -> Differences {
    let mut out = Differences::default();
    for key in COMMON {
        compare(key, old.get(key), new.get(key), &Length::Fixed, &mut out);
    }
    let mut seen = BTreeSet::new();
    let mut section = Some(stage.to_owned());
    while let Some(name) = section.take() {
        if !seen.insert(name.clone()) {
            break;
        }
        let (a, b) = (old.get(&name), new.get(&name));
        let length = if name == stage { Length::of(a, b) } else { Length::Fixed };
        compare(&name, a, b, &length, &mut out);
        let start = b.and_then(|section| section.get("start")).and_then(Value::as_str);
        section = start.filter(|start| new.get(start).is_some()).map(str::to_owned);
    }
    out
}

/// Whether the length of the stage may change.
enum Length {
    /// The schedule does not depend on the length.
    Free,
    /// The schedule depends on the length; the text is a suffix of the message.
    Schedule(String),
    /// The stage is the start of another one.
    Fixed,
}

impl Length {
    fn of(old: Option<&Value>, new: Option<&Value>) -> Self {
        let schedule = |section: Option<&Value>| section.and_then(|s| s.get("schedule")).cloned();
        let (old, new) = (schedule(old), schedule(new));
        let kind = new.as_ref().and_then(|s| s.get("kind")).and_then(Value::as_str);
        let kind = kind.unwrap_or("cosine").to_owned();
        let fixed_length = |s: &Option<Value>| {
            s.as_ref().and_then(|s| s.get("total_steps")).is_some_and(|v| !v.is_null())
        };
        if old == new && (kind == "constant" || fixed_length(&new)) {
            Self::Free
        } else {
            Self::Schedule(format!(
                " (the {kind} schedule spans the steps of the stage; \
                 `schedule.total_steps` would fix its length)"
            ))
        }
    }
}

fn compare(
    path: &str,
    old: Option<&Value>,
    new: Option<&Value>,
    length: &Length,
    out: &mut Differences,
) {
    let (mut a, mut b) = (BTreeMap::new(), BTreeMap::new());
    flatten(path, old, &mut a);
    flatten(path, new, &mut b);
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for key in keys {
        let (old, new) = (a.get(key), b.get(key));
        if old == new {
            continue;
        }
        let shown = |value: Option<&String>| value.map_or("unset".into(), |v| format!("`{v}`"));
        let line = format!("{key}: was {}, is now {}", shown(old), shown(new));
        let name = key.rsplit('.').next().unwrap_or(key);
        let name = name.split('[').next().unwrap_or(name);
        // These names have their meaning only as direct keys of a section.
        let direct = key.matches('.').count() <= 1;
        if direct && FREE.contains(&name) {
            continue;
        }
        if direct && BITS_ONLY.contains(&name) {
            out.tolerated.push(line);
            continue;
        }
        match length {
            Length::Free if direct && LENGTH.contains(&name) => {}
            Length::Schedule(why) if direct && LENGTH.contains(&name) => {
                out.refused.push(line + why);
            }
            Length::Free | Length::Schedule(_) | Length::Fixed => out.refused.push(line),
        }
    }
}

/// The values of a recipe by their keys, such as `sft.data[0].path`. Keys that are not set are left out.
pub fn flat_keys(recipe: &Value) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    for (key, value) in recipe.as_object().into_iter().flatten() {
        flatten(key, Some(value), &mut keys);
    }
    keys
}

/// Maps `a.b[2].c` to the value as text, for every leaf that is not null.
fn flatten(path: &str, value: Option<&Value>, out: &mut BTreeMap<String, String>) {
    match value {
        None | Some(Value::Null) => {}
        Some(Value::Object(map)) => {
            for (key, value) in map {
                flatten(&format!("{path}.{key}"), Some(value), out);
            }
        }
        Some(Value::Array(items)) => {
            for (idx, value) in items.iter().enumerate() {
                flatten(&format!("{path}[{idx}]"), Some(value), out);
            }
        }
        Some(leaf) => {
            let text = leaf.as_str().map_or_else(|| leaf.to_string(), str::to_owned);
            out.insert(path.to_owned(), text);
        }
    }
}
