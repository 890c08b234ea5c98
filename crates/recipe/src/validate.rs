//! Compares a TOML document with the shape of a recipe: keys, types, words, ranges. Whether keys
//! agree with each other is each section's own `check`.

use toml_edit::{Item, TableLike, Value};

use crate::error::shown;
use crate::found::Found;
use crate::problems::{Problem, Problems, Rank, bracketed, named};
use crate::shape::{Bounds, Key, Marker, Shape, Table, Text, Variant};
use crate::spans::{Target, join};
use crate::suggest;

/// Collects everything in `document` that a recipe cannot have.
pub(crate) fn validate(document: &dyn TableLike, problems: &mut Problems) {
    let mut validator = Validator { problems, about: None };
    validator.table("", document, crate::shape::recipe(), &[]);
}

struct Validator<'p> {
    problems: &'p mut Problems,
    /// What the key at hand is for, as a hint at a wrong value.
    about: Option<String>,
}

impl Validator<'_> {
    /// `siblings` are the other tables that could stand here, for the hint at a key that one of
    /// them has.
    fn table(&mut self, path: &str, found: &dyn TableLike, table: &Table, siblings: &[Variant]) {
        let outer = self.about.take();
        for (name, item) in found.iter() {
            let Some(key) = table.key(name) else {
                self.unknown_key(path, name, &[table], siblings);
                continue;
            };
            self.about = Some(about(key));
            self.value(&join(path, name), Found::of(item), &key.shape);
        }
        self.about = outer;
        for key in table.keys.iter().filter(|key| key.required && !found.contains_key(&key.name)) {
            self.problems.push(Problem {
                rank: Rank::Missing,
                path: path.to_owned(),
                target: Target::Key,
                message: format!("missing key `{}` in {}", key.name, bracketed(path)),
                label: String::new(),
                hint: Some(about(key)),
            });
        }
    }

    fn unknown_key(&mut self, path: &str, name: &str, tables: &[&Table], siblings: &[Variant]) {
        if self.problems.is_full() {
            return;
        }
        let suggestion = suggest::key(path, name, tables, siblings);
        let hint = suggestion.is_none().then(|| suggest::known_keys(path, tables));
        self.problems.push(Problem {
            rank: Rank::UnknownKey,
            path: join(path, name),
            target: Target::Key,
            message: format!("unknown key `{}` in {}", shown(name), bracketed(path)),
            label: suggestion.unwrap_or_default(),
            hint,
        });
    }

    fn value(&mut self, path: &str, found: Found<'_>, shape: &Shape) {
        match (shape, found) {
            (Shape::Table(table), Found::Table(inner)) => self.table(path, inner, table, &[]),
            (Shape::Choice { variants, .. }, Found::Table(inner)) => {
                self.choice(path, inner, variants);
            }
            (Shape::List { item, min, max }, Found::Value(Value::Array(values))) => {
                self.length(path, values.len(), *min, *max);
                for (idx, value) in values.iter().enumerate() {
                    self.value(&format!("{path}[{idx}]"), Found::of_value(value), item);
                }
            }
            (Shape::List { item, min, max }, Found::Tables(tables)) => {
                self.length(path, tables.len(), *min, *max);
                for (idx, table) in tables.iter().enumerate() {
                    self.value(&format!("{path}[{idx}]"), Found::Table(table), item);
                }
            }
            (Shape::Map(shape), Found::Table(inner)) => {
                if inner.is_empty() {
                    self.wrong_value(path, "must not be empty", "{}");
                }
                for (name, item) in inner.iter() {
                    self.value(&join(path, name), Found::of(item), shape);
                }
            }
            (Shape::Text(text), Found::Value(Value::String(value))) => {
                self.text(path, value.value(), text);
            }
            (Shape::Integer { min, max }, Found::Value(Value::Integer(value))) => {
                self.integer(path, *value.value(), *min, *max);
            }
            (Shape::Number(bounds), Found::Value(Value::Float(value))) => {
                self.number(path, *value.value(), bounds, found.text());
            }
            (Shape::Number(bounds), Found::Value(Value::Integer(value))) => {
                self.number(path, *value.value() as f64, bounds, found.text());
            }
            (Shape::Switch, Found::Value(Value::Boolean(_))) => {}
            _ => self.wrong_kind(path, found, shape),
        }
    }

    fn wrong_kind(&mut self, path: &str, found: Found<'_>, shape: &Shape) {
        let hint = match (shape, found) {
            (Shape::List { .. }, Found::Table(_)) => {
                Some("put brackets around it: `[{ … }]`".to_owned())
            }
            (Shape::List { .. }, _) => Some("put brackets around it: `[ … ]`".to_owned()),
            (Shape::Integer { .. }, Found::Value(Value::Float(number)))
                if number.value().fract() == 0.0 =>
            {
                Some(format!("write it without point or exponent: `{:.0}`", number.value()))
            }
            (
                Shape::Integer { .. } | Shape::Number(_) | Shape::Switch,
                Found::Value(Value::String(text)),
            ) if text.value().parse::<Value>().is_ok() => {
                Some("write it without quotes".to_owned())
            }
            (Shape::Table(_) | Shape::Choice { .. }, Found::Value(value)) => {
                match shape.default_table().and_then(Table::only_needed) {
                    Some(key) => {
                        let value = shown(value.to_string().trim());
                        Some(format!("write it as `{{ {key} = {value} }}`"))
                    }
                    None => self.about.clone(),
                }
            }
            (
                Shape::Text(_),
                Found::Value(
                    Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_),
                ),
            ) => Some("put quotes around it".to_owned()),
            _ => self.about.clone(),
        };
        self.problems.push(Problem {
            rank: Rank::WrongValue,
            path: path.to_owned(),
            target: Target::Value,
            message: format!("{} must be {}: `{}`", named(path), kind(shape), found.text()),
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
                self.problems.push(Problem {
                    rank: Rank::Missing,
                    path: path.to_owned(),
                    target: Target::Key,
                    message: format!("{} needs {}", bracketed(path), one_of(&markers)),
                    label: String::new(),
                    hint: Some(suggest::markers(variants)),
                });
            }
            ([key], _) => self.marked(path, found, key, variants),
            ([first, second, ..], _) => self.problems.push(Problem {
                rank: Rank::WrongValue,
                path: join(path, second),
                target: Target::Key,
                message: format!("{} takes only one of `{first}` and `{second}`", bracketed(path)),
                label: String::new(),
                hint: Some(format!("leave `{first}` or `{second}` out")),
            }),
        }
    }

    /// A choice whose marker is there: the table that it means, or the words that it may have.
    fn marked(&mut self, path: &str, found: &dyn TableLike, key: &str, variants: &[Variant]) {
        let value = found.get(key).and_then(Item::as_str);
        let meant = variants.iter().find(|variant| match &variant.marker {
            Marker::Tag { key: tag, value: word } => tag == key && value == Some(word),
            Marker::Key(marker) => marker == key,
        });
        if let Some(variant) = meant {
            return self.table(path, found, &variant.table, variants);
        }
        let words = variants
            .iter()
            .filter(|variant| variant.marker.key() == key)
            .filter_map(|v| v.table.key(key));
        let words = words.filter_map(|key| match &key.shape {
            Shape::Text(text) => Some(text.words.clone()),
            _ => None,
        });
        self.about = None;
        let text = Shape::Text(Text { words: words.flatten().collect(), ..Text::default() });
        self.value(&join(path, key), found.get(key).map_or(Found::Nothing, Found::of), &text);
    }

    fn length(&mut self, path: &str, n: usize, min: usize, max: usize) {
        if n < min && n == 0 {
            self.wrong_value(path, "must not be empty", "[]");
        } else if n < min || n > max {
            let wanted = if min == max { format!("{min}") } else { format!("{min} to {max}") };
            self.wrong_value(path, &format!("must have {wanted} entries"), &n.to_string());
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
            let near = suggest::nearest(value, words.iter().copied());
            self.wrong_text(path, value, &format!("{rule} {}", known.join(", ")), near);
        }
    }

    fn wrong_text(&mut self, path: &str, value: &str, rule: &str, near: Option<&str>) {
        self.problems.push(Problem {
            rank: Rank::WrongValue,
            path: path.to_owned(),
            target: Target::Value,
            message: format!("{} {rule}: `{}`", named(path), shown(value)),
            label: near.map(|near| format!("did you mean `{near}`?")).unwrap_or_default(),
            hint: if near.is_none() { self.about.clone() } else { None },
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
    /// The range in words, reading on after `must be`.
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

/// A number as a person writes it: large and tiny ones with an exponent.
pub(crate) fn plain(number: f64) -> String {
    let size = number.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        format!("{number:e}")
    } else {
        format!("{number}")
    }
}

/// What a key is for.
fn about(key: &Key) -> String {
    format!("`{}`: {}", key.name, suggest::first_sentence(&key.doc))
}

/// What a shape takes, reading on after `must be`.
fn kind(shape: &Shape) -> &'static str {
    match shape {
        Shape::Table(_) | Shape::Choice { .. } | Shape::Map(_) => "a table",
        Shape::List { .. } => "a list",
        Shape::Text(_) => "a string",
        Shape::Integer { .. } => "a whole number",
        Shape::Number(_) => "a number",
        Shape::Switch => "true or false",
    }
}

fn one_of(keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    if keys.len() == 1 { keys.concat() } else { format!("one of {}", keys.join(" and ")) }
}
