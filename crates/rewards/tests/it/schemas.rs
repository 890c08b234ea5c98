//! JSON documents against schemas.

use recipe::{Reward, RewardKind};
use rewards::Rewards;

use crate::support::{one, value};

fn matches(schema: &str, text: &str) -> (Option<f64>, String) {
    let keys = serde_json::json!({ "kind": "json_schema", "schema": schema });
    value(&one(&keys.to_string()), "", text)
}

#[test]
fn documents_match_or_not() {
    let person = r#"{
        "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
        "properties": { "name": { "type": "string", "minLength": 1 }, "age": { "type": "integer", "minimum": 0 } },
        "required": ["name"], "additionalProperties": false
    }"#;
    let cases = [
        (person, r#"{"name": "Ada", "age": 36}"#, 1.0),
        (person, "```json\n{\"name\": \"Ada\"}\n```", 1.0),
        (person, r#"{"name": "Ada", "age": 36.0}"#, 1.0),
        (person, r#"{"name": "Ada", "age": 36.5}"#, 0.0),
        (person, r#"{"name": "Ada", "age": -1}"#, 0.0),
        (person, r#"{"name": ""}"#, 0.0),
        (person, r#"{"age": 36}"#, 0.0),
        (person, r#"{"name": "Ada", "role": "x"}"#, 0.0),
        (person, r#"{"name": "Ada"} and more"#, 0.0),
        (person, r#"{"name": "Ada""#, 0.0),
        (person, r"{'name': 'Ada'}", 0.0),
        (person, "", 0.0),
        (person, "[]", 0.0),
        (r#"{"enum": [1, "a", null]}"#, "1.0", 1.0),
        (r#"{"enum": [1, "a", null]}"#, "2", 0.0),
        (r#"{"const": {"a": [1]}}"#, r#"{"a": [1.0]}"#, 1.0),
        (r#"{"type": ["string", "null"]}"#, "null", 1.0),
        (r#"{"type": ["string", "null"]}"#, "1", 0.0),
        (r#"{"type": "boolean"}"#, "true", 1.0),
        (r#"{"type": "boolean"}"#, "1", 0.0),
        (r#"{"items": {"type": "number"}, "minItems": 2, "maxItems": 3}"#, "[1, 2]", 1.0),
        (r#"{"items": {"type": "number"}, "minItems": 2, "maxItems": 3}"#, "[1]", 0.0),
        (r#"{"items": {"type": "number"}, "minItems": 2, "maxItems": 3}"#, "[1, \"2\"]", 0.0),
        (r#"{"uniqueItems": true}"#, "[1, 1.0]", 0.0),
        (r#"{"uniqueItems": true}"#, "[1, \"1\"]", 1.0),
        (r#"{"exclusiveMinimum": 0, "maximum": 1}"#, "0", 0.0),
        (r#"{"exclusiveMinimum": 0, "maximum": 1}"#, "1", 1.0),
        (r#"{"multipleOf": 0.1}"#, "0.3", 1.0),
        (r#"{"multipleOf": 0.1}"#, "0.35", 0.0),
        (r#"{"pattern": "^a+$"}"#, "\"aa\"", 1.0),
        (r#"{"pattern": "^a+$"}"#, "\"ab\"", 0.0),
        (r#"{"maxLength": 2}"#, "\"äö\"", 1.0),
        (r#"{"anyOf": [{"type": "string"}, {"minimum": 3}]}"#, "3", 1.0),
        (r#"{"anyOf": [{"type": "string"}, {"minimum": 3}]}"#, "2", 0.0),
        (r#"{"oneOf": [{"minimum": 1}, {"minimum": 2}]}"#, "3", 0.0),
        (r#"{"oneOf": [{"minimum": 1}, {"minimum": 2}]}"#, "1", 1.0),
        (r#"{"allOf": [{"minimum": 1}, {"maximum": 2}]}"#, "3", 0.0),
        (r#"{"not": {"type": "null"}}"#, "null", 0.0),
        (r#"{"minProperties": 1}"#, "{}", 0.0),
        ("true", "1", 1.0),
        ("false", "1", 0.0),
    ];
    for (schema, text, expected) in cases {
        let (found, why) = matches(schema, text);
        assert_eq!(found, Some(expected), "{schema} {text}: {why}");
    }
}

/// serde_json stops at a depth of 128, so a completion of brackets does not exhaust the stack.
#[test]
fn deep_documents_are_no_match() {
    assert_eq!(matches("true", &"[".repeat(100_000)).0, Some(0.0));
}

#[test]
fn unknown_keywords_and_wrong_values_are_refused() {
    let cases = [
        ("{", "in its JSON, EOF while parsing an object at line 1"),
        (r#"{"type": "object", "type": "array"}"#, "the key `type` occurs twice in an object at"),
        (
            r#"{"properties": {"a": {"minimum": 1, "minimum": 2}}}"#,
            "the key `minimum` occurs twice",
        ),
        ("3", "must be an object"),
        (r#"{"$ref": "x"}"#, "`$.$ref` is a keyword that is not checked"),
        (r#"{"properties": {"a": {"format": "date"}}}"#, "`$.properties.a.format`"),
        (r#"{"type": "text"}"#, "unknown type `text`"),
        (r#"{"minItems": -1}"#, "must be a count"),
        (r#"{"pattern": "("}"#, "not a regular expression"),
        (r#"{"pattern": "\\w{90}"}"#, "takes too much memory"),
        (&format!("{{\"anyOf\": [{}true]}}", r#"{"pattern": "a"},"#.repeat(65)), "65 patterns"),
        (r#"{"multipleOf": 0}"#, "above 0"),
        (r#"{"anyOf": []}"#, "must be a list"),
    ];
    for (schema, part) in cases {
        let keys = serde_json::json!({ "kind": "json_schema", "schema": schema });
        let kind: RewardKind = serde_json::from_value(keys).expect("keys");
        let (_, error) = Rewards::new(&[Reward { kind, weight: 1.0 }], 8).expect_err(schema);
        assert!(error.to_string().contains(part), "{schema}: {error}");
        assert_eq!(error.key(), "schema");
    }
}
