//! The `json_schema` reward: whether a completion is JSON that matches a schema.
//!
//! The vocabulary is the part of JSON Schema (draft 2020-12) that describes single documents. A schema with any other
//! keyword is refused, so that no rule is passed over.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Number, Value};

use crate::{Error, Result};

/// Keywords without an effect on whether a document matches.
const NOTES: [&str; 7] =
    ["$schema", "$id", "$comment", "title", "description", "default", "examples"];
/// Names of types.
const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];

/// A checked schema.
#[derive(Clone, Debug)]
pub(crate) enum Schema {
    /// `true` or `false`: everything or nothing matches.
    Always(bool),
    /// All rules must hold.
    Rules(Vec<Rule>),
}

/// A rule of a schema.
#[derive(Clone, Debug)]
pub(crate) enum Rule {
    Types(Vec<String>),
    OneOfValues(Vec<Value>),
    Properties(BTreeMap<String, Schema>),
    Required(Vec<String>),
    /// Properties beside the named ones.
    Additional {
        named: Vec<String>,
        schema: Schema,
    },
    Items(Schema),
    NumberOf {
        what: Counted,
        min: usize,
        max: usize,
    },
    UniqueItems,
    Range {
        min: Option<f64>,
        above: Option<f64>,
        max: Option<f64>,
        below: Option<f64>,
    },
    MultipleOf(f64),
    Pattern(Regex),
    AllOf(Vec<Schema>),
    AnyOf(Vec<Schema>),
    OneOf(Vec<Schema>),
    Not(Schema),
}

/// A quantity with limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Characters,
    Items,
    Properties,
}

/// Most patterns of a schema, and the memory that each may take once it is compiled, in bytes.
const MOST_PATTERNS: usize = 64;
const PATTERN_BYTES: usize = 256 << 10;

/// 1 if the text is a JSON document that matches, else 0; and the reason. A code fence around the document is removed.
pub(crate) fn score(text: &str, schema: &Schema) -> (f64, String) {
    match serde_json::from_str::<Value>(without_fence(text.trim())) {
        Err(error) => (0.0, format!("is not JSON: {error}")),
        Ok(value) => match schema.check(&value, "$") {
            Ok(()) => (1.0, "matches the schema".to_owned()),
            Err(why) => (0.0, why),
        },
    }
}

fn without_fence(text: &str) -> &str {
    let inside = text.strip_prefix("```").and_then(|text| text.strip_suffix("```"));
    let Some((language, document)) = inside.and_then(|inside| inside.split_once('\n')) else {
        return text;
    };
    if matches!(language.trim(), "" | "json") { document.trim() } else { text }
}

impl Schema {
    /// Reads a schema from JSON text.
    ///
    /// Errors: text that is not JSON, a key twice, a wrong value or an unknown keyword.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        // Of a key that occurs twice, one rule would be lost.
        let (value, _) = fsio::strict_json(text.as_bytes())
            .map_err(|error| Error::Schema { reason: format!("in its JSON, {error}") })?;
        let n_patterns = n_patterns(&value);
        if n_patterns > MOST_PATTERNS {
            let reason = format!("it has {n_patterns} patterns, more than {MOST_PATTERNS}");
            return Err(Error::Schema { reason });
        }
        Self::of(&value, "$")
    }

    fn of(value: &Value, at: &str) -> Result<Self> {
        match value {
            Value::Bool(always) => Ok(Self::Always(*always)),
            Value::Object(keywords) => rules(keywords, at).map(Self::Rules),
            Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(wrong(at, "must be an object, true or false"))
            }
        }
    }

    /// Checks a document; the error names its first part that does not match.
    fn check(&self, value: &Value, at: &str) -> std::result::Result<(), String> {
        match self {
            Self::Always(true) => Ok(()),
            Self::Always(false) => Err(format!("{at} is not allowed")),
            Self::Rules(rules) => rules.iter().try_for_each(|rule| rule.check(value, at)),
        }
    }
}

fn wrong(at: &str, problem: &str) -> Error {
    Error::Schema { reason: format!("`{at}` {problem}") }
}

/// The rules of a schema's keywords.
fn rules(keywords: &Map<String, Value>, at: &str) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for (keyword, value) in keywords {
        let at = format!("{at}.{keyword}");
        let sub = || Schema::of(value, &at);
        let rule = match keyword.as_str() {
            name if NOTES.contains(&name) => continue,
            "type" => Rule::Types(types(value, &at)?),
            "const" => Rule::OneOfValues(vec![value.clone()]),
            "enum" => Rule::OneOfValues(list(value, &at)?.clone()),
            "properties" => Rule::Properties(properties(value, &at)?),
            "required" => Rule::Required(texts(value, &at)?),
            "additionalProperties" => {
                let named = keywords.get("properties").and_then(Value::as_object);
                let named = named.into_iter().flat_map(|named| named.keys().cloned()).collect();
                Rule::Additional { named, schema: sub()? }
            }
            "items" => Rule::Items(sub()?),
            "minItems" => at_least(Counted::Items, value, &at)?,
            "maxItems" => at_most(Counted::Items, value, &at)?,
            "minLength" => at_least(Counted::Characters, value, &at)?,
            "maxLength" => at_most(Counted::Characters, value, &at)?,
            "minProperties" => at_least(Counted::Properties, value, &at)?,
            "maxProperties" => at_most(Counted::Properties, value, &at)?,
            "uniqueItems" => match value.as_bool() {
                Some(true) => Rule::UniqueItems,
                Some(false) => continue,
                None => return Err(wrong(&at, "must be true or false")),
            },
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                range(keyword, number(value, &at)?)
            }
            "multipleOf" => Rule::MultipleOf(
                Some(number(value, &at)?)
                    .filter(|n| *n > 0.0)
                    .ok_or_else(|| wrong(&at, "must be above 0"))?,
            ),
            "pattern" => Rule::Pattern(pattern(value, &at)?),
            "allOf" => Rule::AllOf(schemas(value, &at)?),
            "anyOf" => Rule::AnyOf(schemas(value, &at)?),
            "oneOf" => Rule::OneOf(schemas(value, &at)?),
            "not" => Rule::Not(sub()?),
            _ => return Err(wrong(&at, "is a keyword that is not checked")),
        };
        rules.push(rule);
    }
    Ok(rules)
}

fn list<'v>(value: &'v Value, at: &str) -> Result<&'v Vec<Value>> {
    value.as_array().filter(|list| !list.is_empty()).ok_or_else(|| wrong(at, "must be a list"))
}

fn texts(value: &Value, at: &str) -> Result<Vec<String>> {
    let list = value.as_array().ok_or_else(|| wrong(at, "must be a list of names"))?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    list.iter().map(|v| text(v).ok_or_else(|| wrong(at, "must be a list of names"))).collect()
}

fn types(value: &Value, at: &str) -> Result<Vec<String>> {
    let names = match value {
        Value::String(name) => vec![name.clone()],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            texts(value, at)?
        }
    };
    match names.iter().find(|name| !TYPES.contains(&name.as_str())) {
        Some(name) => Err(wrong(at, &format!("has the unknown type `{name}`"))),
        None => Ok(names),
    }
}

fn properties(value: &Value, at: &str) -> Result<BTreeMap<String, Schema>> {
    let named = value.as_object().ok_or_else(|| wrong(at, "must be an object"))?;
    let schema = |(name, value): (&String, &Value)| {
        Ok((name.clone(), Schema::of(value, &format!("{at}.{name}"))?))
    };
    named.iter().map(schema).collect()
}

fn schemas(value: &Value, at: &str) -> Result<Vec<Schema>> {
    let schemas = list(value, at)?.iter().enumerate();
    schemas.map(|(idx, value)| Schema::of(value, &format!("{at}[{idx}]"))).collect()
}

fn count(value: &Value, at: &str) -> Result<usize> {
    let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
    count.ok_or_else(|| wrong(at, "must be a count"))
}

fn at_least(what: Counted, value: &Value, at: &str) -> Result<Rule> {
    Ok(Rule::NumberOf { what, min: count(value, at)?, max: usize::MAX })
}

fn at_most(what: Counted, value: &Value, at: &str) -> Result<Rule> {
    Ok(Rule::NumberOf { what, min: 0, max: count(value, at)? })
}

fn number(value: &Value, at: &str) -> Result<f64> {
    value.as_f64().ok_or_else(|| wrong(at, "must be a number"))
}

fn range(keyword: &str, bound: f64) -> Rule {
    let bound = |name: &str| (keyword == name).then_some(bound);
    Rule::Range {
        min: bound("minimum"),
        above: bound("exclusiveMinimum"),
        max: bound("maximum"),
        below: bound("exclusiveMaximum"),
    }
}

fn pattern(value: &Value, at: &str) -> Result<Regex> {
    let pattern = value.as_str().ok_or_else(|| wrong(at, "must be a text"))?;
    let compiled = regex::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build();
    compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            wrong(at, "takes too much memory: shorten its repetitions")
        }
        regex::Error::Syntax(_) | _ => {
            wrong(at, "is not a regular expression of the linear-time engine")
        }
    })
}

/// Number of keys named `pattern`, properties of that name included.
fn n_patterns(value: &Value) -> usize {
    match value {
        Value::Object(map) => {
            usize::from(map.contains_key("pattern")) + map.values().map(n_patterns).sum::<usize>()
        }
        Value::Array(items) => items.iter().map(n_patterns).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

impl Rule {
    fn check(&self, value: &Value, at: &str) -> std::result::Result<(), String> {
        let holds = match self {
            Self::Types(types) => types.iter().any(|name| has_type(value, name)),
            Self::OneOfValues(values) => values.iter().any(|wanted| equals(value, wanted)),
            Self::Properties(named) => return check_properties(named, value, at),
            Self::Required(names) => return check_required(names, value, at),
            Self::Additional { named, schema } => {
                let others = value.as_object().into_iter().flatten();
                let mut others = others.filter(|(name, _)| !named.contains(name));
                return others.try_for_each(|(name, v)| schema.check(v, &format!("{at}.{name}")));
            }
            Self::Items(schema) => {
                let mut items = value.as_array().into_iter().flatten().enumerate();
                return items.try_for_each(|(idx, v)| schema.check(v, &format!("{at}[{idx}]")));
            }
            Self::NumberOf { what, min, max } => {
                let n = match (what, value) {
                    (Counted::Characters, Value::String(text)) => Some(text.chars().count()),
                    (Counted::Items, Value::Array(items)) => Some(items.len()),
                    (Counted::Properties, Value::Object(object)) => Some(object.len()),
                    _ => None,
                };
                n.is_none_or(|n| (*min..=*max).contains(&n))
            }
            Self::UniqueItems => value.as_array().is_none_or(|items| {
                let is_new = |(idx, item): (usize, &Value)| {
                    !items.iter().take(idx).any(|other| equals(other, item))
                };
                items.iter().enumerate().all(is_new)
            }),
            Self::Range { min, above, max, below } => value.as_f64().is_none_or(|n| {
                min.is_none_or(|min| n >= min)
                    && above.is_none_or(|above| n > above)
                    && max.is_none_or(|max| n <= max)
                    && below.is_none_or(|below| n < below)
            }),
            Self::MultipleOf(step) => value.as_f64().is_none_or(|n| {
                let quotient = n / step;
                (quotient - quotient.round()).abs() <= 1e-9 * quotient.abs().max(1.0)
            }),
            Self::Pattern(pattern) => value.as_str().is_none_or(|text| pattern.is_match(text)),
            Self::AllOf(schemas) => {
                return schemas.iter().try_for_each(|schema| schema.check(value, at));
            }
            Self::AnyOf(schemas) => schemas.iter().any(|schema| schema.check(value, at).is_ok()),
            Self::OneOf(schemas) => {
                schemas.iter().filter(|schema| schema.check(value, at).is_ok()).count() == 1
            }
            Self::Not(schema) => schema.check(value, at).is_err(),
        };
        if holds { Ok(()) } else { Err(format!("{at} does not match `{}`", self.keyword())) }
    }

    /// The keyword, for messages.
    fn keyword(&self) -> &'static str {
        match self {
            Self::Types(_) => "type",
            Self::OneOfValues(_) => "enum",
            Self::Properties(_) => "properties",
            Self::Required(_) => "required",
            Self::Additional { .. } => "additionalProperties",
            Self::Items(_) => "items",
            Self::NumberOf { what: Counted::Characters, .. } => "minLength or maxLength",
            Self::NumberOf { what: Counted::Items, .. } => "minItems or maxItems",
            Self::NumberOf { what: Counted::Properties, .. } => "minProperties or maxProperties",
            Self::UniqueItems => "uniqueItems",
            Self::Range { .. } => "minimum or maximum",
            Self::MultipleOf(_) => "multipleOf",
            Self::Pattern(_) => "pattern",
            Self::AllOf(_) => "allOf",
            Self::AnyOf(_) => "anyOf",
            Self::OneOf(_) => "oneOf",
            Self::Not(_) => "not",
        }
    }
}

fn check_properties(
    named: &BTreeMap<String, Schema>,
    value: &Value,
    at: &str,
) -> std::result::Result<(), String> {
    let Value::Object(object) = value else { return Ok(()) };
    named.iter().try_for_each(|(name, schema)| match object.get(name) {
        Some(value) => schema.check(value, &format!("{at}.{name}")),
        None => Ok(()),
    })
}

fn check_required(names: &[String], value: &Value, at: &str) -> std::result::Result<(), String> {
    let Value::Object(object) = value else { return Ok(()) };
    match names.iter().find(|name| !object.contains_key(*name)) {
        Some(name) => Err(format!("{at} has no `{name}`")),
        None => Ok(()),
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        Value::Number(number) => name == "number" || (name == "integer" && is_integer(number)),
        Value::String(_) => name == "string",
        Value::Array(_) => name == "array",
        Value::Object(_) => name == "object",
    }
}

/// 1.0 is an integer, as in JSON Schema.
fn is_integer(number: &Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|n| n.fract() == 0.0)
}

/// Equality of documents; 1 and 1.0 are the same number.
fn equals(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equals(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len()
                && x.iter().all(|(name, x)| y.get(name).is_some_and(|y| equals(x, y)))
        }
        _ => a == b,
    }
}
