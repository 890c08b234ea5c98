//! Fields of messages that a template writes.
//!
//! transformers passes every field of a message to the template, which reads the ones it knows. A
//! field with meaning that the template does not read would be lost without a word, so it is an
//! error here. Others, such as an id or a time, change nothing and are dropped.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::template::MessageView;
use super::{ChatTemplate, Conversation, Message, Role, TemplateTokens};
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
    if !conversation.tools.is_empty() && !template.reads("tools") {
        return not_rendered("tools");
    }
    let messages = conversation.messages;
    if messages.iter().all(|message| message.fields.is_empty()) {
        return Ok(Cow::Borrowed(messages));
    }
    let mut messages = messages.to_vec();
    for message in &mut messages {
        for (field, value) in std::mem::take(&mut message.fields) {
            match template.field_name(&field).map(str::to_owned) {
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

impl ChatTemplate {
    /// The name under which the template reads a field of messages: its own, or for reasoning the one
    /// that the template writes. None if the template does not read it.
    pub fn field_name<'a>(&self, field: &'a str) -> Option<&'a str> {
        if REASONING_FIELDS.contains(&field) {
            let names = self.reasoning_fields();
            return names.iter().find(|name| **name == field).or(names.first()).copied();
        }
        Some(field).filter(|name| self.reads(name))
    }

    /// Names of the message fields whose reasoning the template writes, of [`REASONING_FIELDS`].
    ///
    /// A template's code may have such a name for something else, as `thinking` is also a switch in
    /// some, so a conversation with reasoning under that name is rendered.
    pub(crate) fn reasoning_fields(&self) -> &[&'static str] {
        self.inner.reasoning_fields.get_or_init(|| {
            let names = REASONING_FIELDS.into_iter();
            names.filter(|name| self.reads(name) && self.may_write_reasoning(name)).collect()
        })
    }

    /// Whether the reasoning of an answer, or of a call of a tool, is in the rendering; also true if
    /// the template refuses both conversations.
    fn may_write_reasoning(&self, field: &str) -> bool {
        const REASONING: &str = "Tq reasoning";
        let rendered = |calls: Option<Value>| {
            let mut answer = Message::new(Role::Assistant, "Tq answer");
            answer.fields.insert(field.to_owned(), REASONING.into());
            answer.fields.extend(calls.map(|calls| ("tool_calls".to_owned(), calls)));
            let messages = [Message::new(Role::User, "Tq question"), answer];
            let views: Vec<MessageView<'_>> = messages.iter().map(MessageView::of).collect();
            self.render_messages(&views, &[], &TemplateTokens::default(), false)
        };
        let call = json!([{"type": "function", "function": {"name": "tq", "arguments": {}}}]);
        let texts: Vec<String> = [None, Some(call)].into_iter().flat_map(rendered).collect();
        texts.is_empty() || texts.iter().any(|text| text.contains(REASONING))
    }
}
