//! Fields of messages that a template writes.
//!
//! transformers passes every field of a message to the template, which reads the ones it knows. A
//! field with meaning that the template does not read would be lost without a word, so it is an
//! error here. Others, such as an id or a time, change nothing and are dropped.

use std::borrow::Cow;

use super::{ChatTemplate, Conversation, Message};
use crate::{Error, Result};

/// Names under which templates read an assistant's reasoning.
pub const REASONING_FIELDS: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
/// Fields with meaning: an error if the template does not read them.
const MEANINGFUL: [&str; 1] = ["tool_calls"];

/// The messages with the fields that the template reads, under the names by which it reads them.
pub(crate) fn rendered_fields<'a>(
    template: &ChatTemplate,
    conversation: Conversation<'a>,
) -> Result<Cow<'a, [Message]>> {
    let not_rendered = |field: &str| {
        Err(Error::FieldNotRendered { name: template.name().to_owned(), field: field.to_owned() })
    };
    let reads = |field: &str| template.reads(field);
    if !conversation.tools.is_empty() && !reads("tools") {
        return not_rendered("tools");
    }
    let messages = conversation.messages;
    if messages.iter().all(|message| message.fields.is_empty()) {
        return Ok(Cow::Borrowed(messages));
    }
    let mut messages = messages.to_vec();
    for message in &mut messages {
        for (field, value) in std::mem::take(&mut message.fields) {
            let name = if REASONING_FIELDS.contains(&field.as_str()) {
                let own = REASONING_FIELDS.into_iter().filter(|name| *name == field);
                own.chain(REASONING_FIELDS).find(|name| reads(name))
            } else {
                Some(field.as_str()).filter(|name| reads(name))
            };
            match name.map(str::to_owned) {
                Some(name) => {
                    message.fields.insert(name, value);
                }
                None if REASONING_FIELDS.contains(&field.as_str())
                    || MEANINGFUL.contains(&field.as_str()) =>
                {
                    return not_rendered(&field);
                }
                None => {}
            }
        }
    }
    Ok(Cow::Owned(messages))
}
