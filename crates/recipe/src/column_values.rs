//! A filter on column values. `data` applies it to rows.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Columns with the values to match: `{ emotions = ["joy", "love"] }`. A column may contain a text,
/// a number or a list; a list matches if one entry does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ColumnValues(BTreeMap<String, Vec<String>>);

impl ColumnValues {
    /// Each column with its values, in alphabetical order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(column, values)| (column.as_str(), values.as_slice()))
    }
}

impl JsonSchema for ColumnValues {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ColumnValues".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "minProperties": 1,
            "additionalProperties": { "type": "array", "items": { "type": "string" }, "minItems": 1 },
        })
    }
}
