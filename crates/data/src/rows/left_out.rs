//! Fields of messages that never reach a chat template, for the report of a source.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::message::{MessageReader, is_empty};
use super::row_columns::RowColumns;
use super::{RowFormat, tree};
use crate::source::Row;

impl RowFormat {
    /// Adds the names of fields with content that no template gets: those that the recipe ignores, and those of a tree's
    /// messages beside role, text and replies.
    pub(crate) fn add_left_out_fields(&self, row: &Row, names: &mut BTreeSet<String>) {
        let columns = &row.columns;
        match &self.columns {
            RowColumns::Tree { root: None } => tree::add_unread_fields(columns, names),
            RowColumns::Tree { root: Some(column) } => {
                if let Some(Value::Object(root)) = columns.get(column) {
                    tree::add_unread_fields(root, names);
                }
            }
            RowColumns::Text(_)
            | RowColumns::PromptCompletion { .. }
            | RowColumns::Messages { .. }
            | RowColumns::Ids(_)
            | RowColumns::Pair { .. }
            | RowColumns::Pool(_)
            | RowColumns::Prompt(_) => {
                let read = self.columns.names().unwrap_or_default();
                for value in read.iter().filter_map(|name| columns.get(name)) {
                    add_ignored(value, &self.reader, names);
                }
            }
        }
    }
}

/// Ignored fields of a column that is a message or a list of messages.
fn add_ignored(value: &Value, reader: &MessageReader, names: &mut BTreeSet<String>) {
    let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let is_message =
        |item: &&Map<String, Value>| item.contains_key("role") || item.contains_key("from");
    for message in items.iter().filter_map(Value::as_object).filter(is_message) {
        let ignored = message.iter().filter(|(key, value)| reader.ignores(key) && !is_empty(value));
        names.extend(ignored.map(|(key, _)| key.clone()));
    }
}
