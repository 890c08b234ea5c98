//! OpenAssistant's message trees: each path from the root to an assistant message is a chat.
//!
//! Every reply is used, whatever its rank. Deleted messages are dropped with all their replies.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use tokenizer::{Message, Role};

use super::message::is_empty;
use crate::dialogue::Dialogue;
use crate::limits;
use crate::row_problem::RowProblem;
use crate::rows::{Chat, text_hash};
use crate::source::json_kind;

/// Roles by the names of the data, from the recipe.
type Roles = BTreeMap<String, Role>;
type Checked<T> = std::result::Result<T, RowProblem>;

/// Whether a row is itself the root message of a tree.
pub(crate) fn is_node(columns: &Map<String, Value>) -> bool {
    columns.contains_key("role") && columns.contains_key("text") && columns.contains_key("replies")
}

/// Chats of a tree whose root is the value of a column.
pub(crate) fn chats_in(column: &str, value: &Value, roles: &Roles) -> Checked<Vec<Chat>> {
    match value {
        Value::Object(root) => chats(root, roles),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(RowProblem::WrongType {
                column: column.to_owned(),
                found: json_kind(value),
                expected: "a message with `role`, `text` and `replies`",
            })
        }
    }
}

/// Chats of a tree, depth first, which is the order of the file.
pub(crate) fn chats(root: &Map<String, Value>, roles: &Roles) -> Checked<Vec<Chat>> {
    let mut walk = Walk { roles, path: Vec::new(), chats: Vec::new(), n_messages: 0, group: None };
    walk.message(root)?;
    if walk.n_messages == 0 {
        return Err(RowProblem::NoMessages);
    }
    Ok(walk.chats)
}

/// Fields of a message that are read.
const FIELDS: [&str; 4] = ["role", "text", "replies", "deleted"];

/// Adds the names of the fields of a tree's messages that are not read. Recurses as deep as the JSON is nested.
pub(super) fn add_unread_fields(node: &Map<String, Value>, names: &mut BTreeSet<String>) {
    let unread =
        |(key, value): &(&String, &Value)| !FIELDS.contains(&key.as_str()) && !is_empty(value);
    names.extend(node.iter().filter(unread).map(|(key, _)| key.clone()));
    let replies = node.get("replies").and_then(Value::as_array);
    for reply in replies.into_iter().flatten().filter_map(Value::as_object) {
        add_unread_fields(reply, names);
    }
}

struct Walk<'a> {
    roles: &'a Roles,
    path: Vec<Message>,
    chats: Vec<Chat>,
    n_messages: usize,
    /// Hash of the root's text, so that all chats of a tree fall into the same split.
    group: Option<u64>,
}

impl Walk<'_> {
    /// Recurses as deep as the JSON is nested, which the readers limit.
    fn message(&mut self, node: &Map<String, Value>) -> Checked<()> {
        if node.get("deleted").and_then(Value::as_bool) == Some(true) {
            return Ok(());
        }
        self.n_messages += 1;
        let index = self.n_messages;
        let bad = |problem: &str| RowProblem::BadMessage { index, problem: problem.to_owned() };
        let role = node.get("role").and_then(Value::as_str).ok_or_else(|| bad("has no `role`"))?;
        let content =
            node.get("text").and_then(Value::as_str).ok_or_else(|| bad("has no `text`"))?;
        let known = match role {
            "prompter" | "user" => Some(Role::User),
            "assistant" => Some(Role::Assistant),
            "system" => Some(Role::System),
            _ => None,
        };
        let role =
            self.roles.get(role).copied().or(known).ok_or_else(|| RowProblem::UnknownRole {
                index,
                role: role.to_owned(),
                known: "system, prompter, assistant",
            })?;
        let group = *self.group.get_or_insert_with(|| text_hash(content));
        self.path.push(Message::new(role, content));
        if role == Role::Assistant {
            if self.chats.len() >= limits::TREE_PATHS {
                return Err(RowProblem::TooMany {
                    what: "chats in a tree",
                    limit: limits::TREE_PATHS,
                });
            }
            let dialogue = Dialogue::from(self.path.clone());
            self.chats.push(Chat { dialogue, group: Some(group), last_turn_only: false });
        }
        match node.get("replies") {
            Some(Value::Array(replies)) => {
                for reply in replies {
                    let reply = reply
                        .as_object()
                        .ok_or_else(|| bad("has a reply that is not an object"))?;
                    self.message(reply)?;
                }
            }
            None | Some(Value::Null) => {}
            Some(_) => return Err(bad("has `replies` that are not a list")),
        }
        self.path.pop();
        Ok(())
    }
}
