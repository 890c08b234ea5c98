//! Checks a TOML document against the schema of a recipe: keys, types, words, ranges. Conflicts
//! between keys are found by the `check` of each section.

use toml_edit::{Item, TableLike, Value};

use crate::diagnostics::{Diagnostics, Problem, Rank, bracketed, named};
use crate::error::shown;
use crate::location::{Target, join};
use crate::nearest::nearest;
use crate::schema_tree::{Bounds, Key, Marker, Node, Table, Text, Variant};
use crate::suggest;
use crate::toml_value::TomlValue;

/// Collects the violations of the schema in `document`.
pub(crate) fn validate(document: &dyn TableLike, diagnostics: &mut Diagnostics) {
    let sections: Vec<String> = document
        .iter()
        .filter(|(_, item)| item.is_table_like())
        .map(|(name, _)| name.to_owned())
        .collect();
    let mut validator = Validator { diagnostics, description: None, sections };
    validator.table("", document, crate::schema_tree::recipe(), &[]);
}

struct Validator<'p> {
    diagnostics: &'p mut Diagnostics,
    /// Description of the current key, as a hint for a wrong value.
    description: Option<String>,
    /// Sections of the recipe.
    sections: Vec<String>,
}

impl Validator<'_> {
    /// `siblings` are the alternatives to this table, for the hint when one of them has an unknown
    /// key.
    fn table(&mut self, path: &str, found: &dyn TableLike, table: &Table, siblings: &[Variant]) {
        let outer = self.description.take();
        for (name, item) in found.iter() {
            let Some(key) = table.key(name) else {
                self.unknown_key(path, name, &[table], siblings);
                continue;
            };
            self.description = Some(description(key));
            self.value(&join(path, name), TomlValue::of(item), &key.node);
        }
        self.description = outer;
        for key in table.keys.iter().filter(|key| key.required && !found.contains_key(&key.name)) {
            self.diagnostics.push(Problem {
                rank: Rank::Missing,
                path: path.to_owned(),
                target: Target::Key,
                message: format!("missing key `{}` in {}", key.name, bracketed(path)),
                label: String::new(),
                hint: Some(description(key)),
            });
        }
    }

    fn unknown_key(&mut self, path: &str, name: &str, tables: &[&Table], siblings: &[Variant]) {
        if self.diagnostics.is_full() {
            return;
        }
        let suggestion = suggest::key(path, name, tables, siblings, &self.sections);
        let hint = suggestion.is_none().then(|| suggest::known_keys(path, tables));
        self.diagnostics.push(Problem {
            rank: Rank::UnknownKey,
            path: join(path, name),
            target: Target::Key,
            message: format!("unknown key `{}` in {}", shown(name), bracketed(path)),
            label: suggestion.unwrap_or_default(),
            hint,
        });
    }

    fn value(&mut self, path: &str, found: TomlValue<'_>, node: &Node) {
        match (node, found) {
            (Node::Table(table), TomlValue::Table(inner)) => self.table(path, inner, table, &[]),
            (Node::Choice { variants, .. }, TomlValue::Table(inner)) => {
                self.choice(path, inner, variants);
            }
            (Node::List { item, min, max, .. }, TomlValue::Value(Value::Array(values))) => {
                self.length(path, values.len(), *min, *max);
                for (idx, value) in values.iter().enumerate() {
                    self.value(&format!("{path}[{idx}]"), TomlValue::of_value(value), item);
                }
            }
            (Node::List { item, min, max, .. }, TomlValue::Tables(tables)) => {
                self.length(path, tables.len(), *min, *max);
                for (idx, table) in tables.iter().enumerate() {
                    self.value(&format!("{path}[{idx}]"), TomlValue::Table(table), item);
                }
            }
            (Node::List { item, or_one: true, .. }, _) => self.value(path, found, item),
            (Node::Map(node), TomlValue::Table(inner)) => {
                if inner.is_empty() {
                    self.wrong_value(path, "must not be empty", "{}");
                }
                for (name, item) in inner.iter() {
                    self.value(&join(path, name), TomlValue::of(item), node);
                }
            }
            (Node::Text(text), TomlValue::Value(Value::String(value))) => {
                self.text(path, value.value(), text);
            }
            (Node::Integer { min, max }, TomlValue::Value(Value::Integer(value))) => {
                self.integer(path, *value.value(), *min, *max);
            }
            (Node::Number(bounds), TomlValue::Value(Value::Float(value))) => {
                self.number(path, *value.value(), bounds, found.text());
            }
            (Node::Number(bounds), TomlValue::Value(Value::Integer(value))) => {
                self.number(path, *value.value() as f64, bounds, found.text());
            }
            (Node::Boolean, TomlValue::Value(Value::Boolean(_))) => {}
            _ => self.wrong_kind(path, found, node),
        }
    }

    fn wrong_kind(&mut self, path: &str, found: TomlValue<'_>, node: &Node) {
        let hint = match (node, found) {
            (Node::List { .. }, TomlValue::Table(_)) => Some("write a list: `[{ … }]`".to_owned()),
            (Node::List { .. }, _) => Some("write a list: `[ … ]`".to_owned()),
            (Node::Integer { .. }, TomlValue::Value(Value::Float(number)))
                if number.value().fract() == 0.0 =>
            {
                Some(format!("write `{:.0}`", number.value()))
            }
            (
                Node::Integer { .. } | Node::Number(_) | Node::Boolean,
                TomlValue::Value(Value::String(text)),
            ) if text.value().parse::<Value>().is_ok() => Some("remove the quotes".to_owned()),
            (Node::Choice { variants, .. }, TomlValue::Value(Value::String(text)))
                if suggest::tagged(variants, text.value()).is_some() =>
            {
                suggest::tagged(variants, text.value()).map(|table| format!("write `{table}`"))
            }
            (Node::Table(_) | Node::Choice { .. }, TomlValue::Value(value)) => {
                match node.default_table().and_then(Table::only_required) {
                    Some(key) => {
                        let value = shown(value.to_string().trim());
                        Some(format!("write `{{ {key} = {value} }}`"))
                    }
                    None => self.description.clone(),
                }
            }
            (
                Node::Text(_),
                TomlValue::Value(
                    Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_),
                ),
            ) => Some("put the value in quotes".to_owned()),
            _ => self.description.clone(),
        };
        self.diagnostics.push(Problem {
            rank: Rank::WrongValue,
            path: path.to_owned(),
            target: Target::Value,
            message: format!("{} must be {}: `{}`", named(path), kind(node), found.text()),
            label: format!("this is {}", found.kind()),
            hint,
        });
    }

    fn choice(&mut self, path: &str, found: &dyn TableLike, variants: &[Variant]) {
        let mut markers: Vec<&str> = Vec::new();
        for variant in variants {
            if !markers.contains(&variant.marker.key()) {
                markers.push(variant.marker.key());
            }
        }
        let present: Vec<&str> =
            markers.iter().copied().filter(|key| found.contains_key(key)).collect();
        let default = variants.iter().find(|variant| variant.is_default());
        match (present.as_slice(), default) {
            ([], Some(variant)) => self.table(path, found, &variant.table, variants),
            ([], None) => {
                let tables: Vec<&Table> = variants.iter().map(|variant| &variant.table).collect();
                for (name, _) in found
                    .iter()
                    .filter(|(name, _)| tables.iter().all(|table| table.key(name).is_none()))
                {
                    self.unknown_key(path, name, &tables, &[]);
                }
                self.diagnostics.push(Problem {
                    rank: Rank::Missing,
                    path: path.to_owned(),
                    target: Target::Key,
                    message: format!("{} needs {}", bracketed(path), one_of(&markers)),
                    label: String::new(),
                    hint: Some(suggest::markers(variants)),
                });
            }
            ([key], _) => self.marked(path, found, key, variants),
            ([first, second, ..], _) => self.diagnostics.push(Problem {
                rank: Rank::WrongValue,
                path: join(path, second),
                target: Target::Key,
                message: format!("{} takes only one of `{first}` and `{second}`", bracketed(path)),
                label: String::new(),
                hint: Some(format!("remove `{first}` or `{second}`")),
            }),
        }
    }

    /// A choice with a marker: checks the table that the marker selects, or the marker's value.
    fn marked(&mut self, path: &str, found: &dyn TableLike, key: &str, variants: &[Variant]) {
        let value = found.get(key).and_then(Item::as_str);
        let selected = variants.iter().find(|variant| match &variant.marker {
            Marker::Tag { key: tag, value: word } => tag == key && value == Some(word),
            Marker::Key(marker) => marker == key,
        });
        if let Some(variant) = selected {
            return self.table(path, found, &variant.table, variants);
        }
        let words = variants
            .iter()
            .filter(|variant| variant.marker.key() == key)
            .filter_map(|v| v.table.key(key));
        let words = words.filter_map(|key| match &key.node {
            Node::Text(text) => Some(text.words.clone()),
            Node::Table(_)
            | Node::Choice { .. }
            | Node::List { .. }
            | Node::Map(_)
            | Node::Integer { .. }
            | Node::Number(_)
            | Node::Boolean => None,
        });
        self.description = None;
        let text = Node::Text(Text { words: words.flatten().collect(), ..Text::default() });
        self.value(
            &join(path, key),
            found.get(key).map_or(TomlValue::Nothing, TomlValue::of),
            &text,
        );
    }

    fn length(&mut self, path: &str, n: usize, min: usize, max: usize) {
        if n < min && n == 0 {
            self.wrong_value(path, "must not be empty", "[]");
        } else if n < min || n > max {
            let kind = if min == max { format!("{min}") } else { format!("{min} to {max}") };
            self.wrong_value(path, &format!("must have {kind} entries"), &n.to_string());
        }
    }

    fn text(&mut self, path: &str, value: &str, text: &Text) {
        let words: Vec<&str> = text.words.iter().map(|word| word.value.as_str()).collect();
        if words.is_empty() {
            if text.non_empty && value.is_empty() {
                self.wrong_value(path, "must not be empty", "\"\"");
            }
            if let Some(format) = text.format
                && let Err(rule) = format.check(value)
            {
                self.wrong_text(path, value, &rule, format.meant(value));
            }
        } else if !words.contains(&value) {
            let known: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            let rule = if known.len() == 1 { "must be" } else { "must be one of" };
            let near = nearest(value, words.iter().copied());
            self.wrong_text(path, value, &format!("{rule} {}", known.join(", ")), near);
        }
    }

    fn wrong_text(&mut self, path: &str, value: &str, rule: &str, near: Option<&str>) {
        self.diagnostics.push(Problem {
            rank: Rank::WrongValue,
            path: path.to_owned(),
            target: Target::Value,
            message: format!("{} {rule}: `{}`", named(path), shown(value)),
            label: near.map(|near| format!("did you mean `{near}`?")).unwrap_or_default(),
            hint: if near.is_none() { self.description.clone() } else { None },
        });
    }

    fn wrong_value(&mut self, path: &str, rule: &str, value: &str) {
        self.wrong_text(path, value, rule, None);
    }

    fn integer(&mut self, path: &str, value: i64, min: i64, max: i64) {
        if (min..=max).contains(&value) {
            return;
        }
        let rule = match (min, max) {
            (min, i64::MAX) => format!("must be at least {min}"),
            (i64::MIN, max) => format!("must be at most {max}"),
            (min, max) => format!("must be from {min} to {max}"),
        };
        self.wrong_value(path, &rule, &value.to_string());
    }

    fn number(&mut self, path: &str, value: f64, bounds: &Bounds, written: String) {
        let holds = value.is_finite()
            && bounds.min.is_none_or(|min| value >= min)
            && bounds.above.is_none_or(|above| value > above)
            && bounds.max.is_none_or(|max| value <= max)
            && bounds.below.is_none_or(|below| value < below);
        if !holds {
            self.wrong_value(path, &format!("must be {}", bounds.words()), &written);
        }
    }
}

impl Bounds {
    /// The range in words, after `must be`.
    pub(crate) fn words(&self) -> String {
        let low = match (self.min, self.above) {
            (_, Some(above)) => Some(format!("above {}", plain(above))),
            (Some(min), None) => Some(format!("at least {}", plain(min))),
            (None, None) => None,
        };
        let high = match (self.max, self.below) {
            (_, Some(below)) => Some(format!("below {}", plain(below))),
            (Some(max), None) => Some(format!("at most {}", plain(max))),
            (None, None) => None,
        };
        match (low, high) {
            (None, None) => "a finite number".to_owned(),
            (Some(one), None) | (None, Some(one)) => one,
            (Some(low), Some(high)) => format!("{low} and {high}"),
        }
    }
}

/// A number as text; large and tiny ones have an exponent.
pub(crate) fn plain(number: f64) -> String {
    let size = number.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        format!("{number:e}")
    } else {
        format!("{number}")
    }
}

/// Name and first sentence of a key.
fn description(key: &Key) -> String {
    format!("`{}`: {}", key.name, suggest::first_sentence(&key.doc))
}

/// Type of a node, after `must be`.
fn kind(node: &Node) -> &'static str {
    match node {
        Node::Table(_) | Node::Choice { .. } | Node::Map(_) => "a table",
        Node::List { .. } => "a list",
        Node::Text(_) => "a string",
        Node::Integer { .. } => "an integer",
        Node::Number(_) => "a number",
        Node::Boolean => "true or false",
    }
}

fn one_of(keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    if keys.len() == 1 { keys.concat() } else { format!("one of {}", keys.join(" and ")) }
}
