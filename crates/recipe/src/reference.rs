//! The reference page and the JSON Schema for editors, from the types' own documentation.

use serde_json::Value;

/// docs/recipe.md.
pub fn reference_markdown() -> String {
    format!("{:#?}", crate::shape::recipe())
}

/// docs/recipe.schema.json.
pub fn json_schema() -> Value {
    crate::shape::json_schema()
}
