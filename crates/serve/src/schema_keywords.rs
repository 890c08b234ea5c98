//! Keywords of the JSON schemas that a request may have. The parser of schemas passes over names that it does not know, so a rule
//! with a wrong name would have no effect.

use std::collections::HashSet;

use serde_json::Value;

/// Keywords that the parser follows (`IMPLEMENTED` of llguidance's json/schema.rs).
const FOLLOWED: [&str; 27] = [
    "$ref",
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "required",
    "type",
];
/// Keywords that allow and forbid nothing by themselves. Names that start with `x-` are notes, too.
const NOTES: [&str; 16] = [
    "$anchor",
    "$comment",
    "$defs",
    "$id",
    "$schema",
    "contentEncoding",
    "contentMediaType",
    "default",
    "definitions",
    "deprecated",
    "description",
    "examples",
    "id",
    "readOnly",
    "title",
    "writeOnly",
];
/// Settings of the parser, which are not the request's.
const SETTINGS: &str = "x-guidance";

/// Refuses a schema with a keyword that is not followed; the error is the reason.
pub(crate) fn check(root: &Value) -> Result<(), String> {
    let mut left = vec![(String::new(), root)];
    let mut seen = HashSet::new();
    while let Some((at, schema)) = left.pop() {
        // Anything else is no schema, or one that allows all or nothing.
        let Value::Object(keywords) = schema else { continue };
        if !seen.insert(std::ptr::from_ref(schema)) {
            continue;
        }
        for (keyword, value) in keywords {
            if !is_known(keyword) {
                return Err(unknown(&at, keyword));
            }
            let at = format!("{at}/{keyword}");
            match (keyword.as_str(), value) {
                (
                    "properties" | "patternProperties" | "$defs" | "definitions",
                    Value::Object(of),
                ) => {
                    left.extend(of.iter().map(|(name, schema)| (format!("{at}/{name}"), schema)));
                }
                ("items" | "prefixItems" | "allOf" | "anyOf" | "oneOf", Value::Array(of)) => {
                    let numbered = of.iter().enumerate();
                    left.extend(numbered.map(|(idx, schema)| (format!("{at}/{idx}"), schema)));
                }
                // Whatever a reference leads to is a schema, even if it is a note such as `default`.
                ("$ref", Value::String(reference)) => {
                    left.extend(target(root, reference).map(|found| (reference.clone(), found)));
                }
                ("items" | "additionalItems" | "additionalProperties", schema) => {
                    left.push((at, schema));
                }
                ("const" | "enum", values) => {
                    if let Some(number) = rounded(values) {
                        return Err(format!(
                            "`{at}` has an integer of more than 64 bits, which would be rounded to {number}"
                        ));
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// A number in a value that is, or may be, an integer of more than 64 bits, which the parser of JSON rounds.
fn rounded(value: &Value) -> Option<f64> {
    const LARGE: f64 = 9.2e18;
    let mut left = vec![value];
    while let Some(value) = left.pop() {
        match value {
            Value::Array(items) => left.extend(items),
            Value::Object(fields) => left.extend(fields.values()),
            Value::Number(number) if number.is_f64() => {
                let number = number.as_f64().filter(|number| number.abs() >= LARGE);
                if number.is_some() {
                    return number;
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    None
}

/// The value that a reference leads to, found as the parser finds it (`lookup_resource` in llguidance's
/// json/context_simple): by literal names. Others are errors of the parser.
fn target<'v>(root: &'v Value, reference: &str) -> Option<&'v Value> {
    let path = reference.strip_prefix("#/").filter(|path| !path.is_empty())?;
    path.split('/').try_fold(root, |value, name| match value.as_array() {
        Some(items) => items.get(name.parse::<usize>().ok()?),
        None => value.get(name),
    })
}

fn is_known(keyword: &str) -> bool {
    let is_note = keyword.starts_with("x-") && keyword != SETTINGS;
    is_note || FOLLOWED.contains(&keyword) || NOTES.contains(&keyword)
}

fn unknown(at: &str, keyword: &str) -> String {
    let place = if at.is_empty() { String::new() } else { format!(" at `{at}`") };
    let similar = FOLLOWED.into_iter().chain(NOTES).find(|of| of.eq_ignore_ascii_case(keyword));
    let meant = similar.map(|similar| format!("; `{similar}` is meant?")).unwrap_or_default();
    format!("the keyword `{keyword}`{place} is not supported{meant}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::check;

    #[test]
    fn unknown_keywords_are_named_with_their_place() {
        let refused = |schema| check(&schema).unwrap_err();
        assert_eq!(
            refused(json!({"type": "string", "maxlength": 3})),
            "the keyword `maxlength` is not supported; `maxLength` is meant?"
        );
        assert_eq!(
            refused(json!({"properties": {"a": {"items": [true, {"if": {}}]}}})),
            "the keyword `if` at `/properties/a/items/1` is not supported"
        );
        for schema in [
            json!({"anyOf": [{"type": "null"}, {"nullable": true}]}),
            json!({"$defs": {"a": {"at_least": 1}}, "$ref": "#/$defs/a"}),
            json!({"additionalProperties": {"y": 1}}),
            json!({"patternProperties": {"^a": {"y": 1}}}),
            json!({"x-guidance": {"lenient": true}}),
        ] {
            assert!(check(&schema).is_err(), "{schema}");
        }
    }

    #[test]
    fn what_a_reference_leads_to_is_a_schema() {
        let wrong = json!({"type": "string", "maxlength": 3});
        let to = |reference: &str, name: &str, place: serde_json::Value| {
            check(&json!({"anyOf": [{"$ref": reference}], name: place}))
        };
        for (reference, name, place) in [
            ("#/default", "default", wrong.clone()),
            ("#/x-a", "x-a", wrong.clone()),
            ("#/x-a/b/c", "x-a", json!({"b": {"c": wrong.clone()}})),
            ("#/x-a", "x-a", json!({"items": wrong.clone()})),
            ("#/x-a", "x-a", json!({"$ref": "#/x-a/default", "default": wrong.clone()})),
            ("#/$defs/0", "$defs", json!([wrong.clone()])),
            ("#/examples/+1", "examples", json!([1, wrong.clone()])),
            ("#/const", "const", wrong.clone()),
            ("#/enum/0", "enum", json!([wrong.clone()])),
        ] {
            let error = to(reference, name, place).unwrap_err();
            assert!(error.starts_with("the keyword `maxlength` at `#/"), "{reference}: {error}");
        }
        // A place that no reference leads to is a note, and references in circles end.
        assert_eq!(to("#/$defs/a", "default", wrong.clone()), Ok(()));
        assert_eq!(to("#", "default", wrong), Ok(()));
        let circle =
            json!({"$ref": "#/$defs/b", "$defs": {"b": {"$ref": "#/$defs/b"}, "c": {"$ref": "#"}}});
        assert_eq!(check(&circle), Ok(()));
    }

    #[test]
    fn notes_and_names_of_properties_are_no_rules() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "a", "$comment": "c",
            "title": "T", "description": "d", "type": "object", "examples": [{"z": 1}], "x-order": 1,
            "properties": {"maxlength": {"type": "string", "format": "date", "default": {"q": 1},
                "deprecated": true, "readOnly": true, "writeOnly": false, "enum": [{"u": 1}]}},
            "required": ["maxlength"], "additionalProperties": false, "items": true,
            "const": {"maxlength": "a"},
        });
        assert_eq!(check(&schema), Ok(()));
    }

    /// The largest integers of 64 bits are exact, and beyond them the parser of JSON rounds.
    #[test]
    fn constants_that_would_be_rounded_are_refused() {
        let checked = |schema: &str| check(&serde_json::from_str(schema).expect("JSON"));
        for number in ["18446744073709551615", "-9223372036854775808", "0.5", "1e18"] {
            assert_eq!(checked(&format!(r#"{{"const": {number}}}"#)), Ok(()), "{number}");
        }
        for number in ["18446744073709551616", "-9223372036854775809", "1e20"] {
            for (schema, at) in [
                (format!(r#"{{"const": {number}}}"#), "/const"),
                (
                    format!(r#"{{"properties": {{"a": {{"enum": [1, [{{"b": {number}}}]]}}}}}}"#),
                    "/properties/a/enum",
                ),
            ] {
                let reason = checked(&schema).expect_err("it is rounded");
                assert!(
                    reason.contains(&format!("`{at}` has an integer of more than 64")),
                    "{reason}"
                );
            }
        }
        // Bounds are no constants.
        assert_eq!(checked(r#"{"maximum": 18446744073709551616}"#), Ok(()));
    }
}
