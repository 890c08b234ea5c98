//! The messages of a conversation: what is left of them where the context is full, and their file.

use std::path::Path;

use serde_json::{Value, json};
use tokenizer::{Message, Role};

use crate::failure::{Failure, Result};

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// The messages, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Conversation {
    messages: Vec<Message>,
}

impl Conversation {
    pub(super) fn new(system: Option<&str>) -> Self {
        Self { messages: system.map(|text| Message::new(Role::System, text)).into_iter().collect() }
    }

    pub(super) fn n_messages(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn system(&self) -> Option<&str> {
        let first = self.messages.first().filter(|message| message.role == Role::System);
        first.map(|message| message.content.as_str())
    }

    /// Removes all messages but the system message.
    pub(super) fn reset(&mut self) {
        self.messages.truncate(self.n_system());
    }

    pub(super) fn add_user(&mut self, text: &str) {
        self.messages.push(Message::new(Role::User, text));
    }

    pub(super) fn add_answer(&mut self, text: &str) {
        self.messages.push(Message::new(Role::Assistant, text));
    }

    /// Removes the last message of the user, which it returns, and all messages after it.
    pub(super) fn take_last_user(&mut self) -> Option<String> {
        let at = self.messages.iter().rposition(|message| message.role == Role::User)?;
        let text = std::mem::take(&mut self.messages.get_mut(at)?.content);
        self.messages.truncate(at);
        Some(text)
    }

    fn n_system(&self) -> usize {
        usize::from(self.system().is_some())
    }

    /// The prompt of the next answer, and how many messages were removed so that it fits into a context of `room` tokens with
    /// an answer of `n_answer`. The oldest ones go first, the system message stays.
    pub(super) fn prompt(
        &mut self,
        encode: impl Fn(&[Message]) -> Result<Vec<u32>>,
        room: usize,
        n_answer: usize,
    ) -> Result<(Vec<u32>, usize)> {
        let mut n_dropped = 0;
        loop {
            let ids = encode(&self.messages)?;
            if ids.len() + n_answer <= room {
                return Ok((ids, n_dropped));
            }
            let oldest = self.n_system();
            // A message goes with its answers, so that the next one is the user's again.
            let later = self.messages.iter().skip(oldest + 1);
            let Some(next) = later.clone().position(|message| message.role == Role::User) else {
                return if ids.len() < room {
                    Ok((ids, n_dropped))
                } else {
                    Err(too_long(&ids, room))
                };
            };
            self.messages.drain(oldest..=oldest + next);
            n_dropped += next + 1;
        }
    }

    /// Writes the messages as a JSON list, which `temper tokenizer render` reads too.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        fsio::check_destination(path)?;
        if fsio::is_present(path) {
            let message = format!("`{}` exists", path.display());
            return Err(Failure::input(message, "choose another name"));
        }
        let messages = self.messages.iter().map(|message| {
            let mut object = json!({"role": message.role.as_str(), "content": message.content});
            if let Some(object) = object.as_object_mut() {
                object.extend(message.fields.clone());
            }
            object
        });
        let text = format!("{:#}\n", Value::Array(messages.collect()));
        Ok(fsio::write_atomic(path, text)?)
    }

    /// Reads such a list.
    pub(super) fn load(path: &Path) -> Result<Self> {
        let text = fsio::read_text_capped(path, MAX_BYTES)?;
        let broken = |reason: String| {
            let message = format!("{}: {reason}", path.display());
            let hint = "a conversation is a JSON list of objects with `role` and `content`";
            Failure::input(message, hint)
        };
        let list: Vec<Value> =
            serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
        let messages = list.into_iter().enumerate().map(|(idx, value)| {
            message_of(value).ok_or_else(|| broken(format!("message {} is none", idx + 1)))
        });
        Ok(Self { messages: messages.collect::<Result<_>>()? })
    }
}

fn message_of(value: Value) -> Option<Message> {
    let Value::Object(mut fields) = value else { return None };
    let role: Role = fields.remove("role")?.as_str()?.parse().ok()?;
    let content = match fields.remove("content")? {
        Value::String(text) => text,
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    Some(Message { fields, ..Message::new(role, content) })
}

fn too_long(ids: &[u32], room: usize) -> Failure {
    Failure::input(
        format!("the message has {} tokens and the model's context is {room}", ids.len()),
        "send a shorter message",
    )
}

#[cfg(test)]
mod tests {
    use super::{Conversation, Message, Result};

    /// A token for each byte.
    #[expect(clippy::unnecessary_wraps, reason = "as the tokenizer's")]
    fn encode(messages: &[Message]) -> Result<Vec<u32>> {
        Ok(messages.iter().flat_map(|m| m.content.bytes()).map(u32::from).collect())
    }

    fn contents(conversation: &Conversation) -> Vec<&str> {
        conversation.messages.iter().map(|message| message.content.as_str()).collect()
    }

    #[test]
    fn a_full_context_loses_its_oldest_messages() {
        let mut chat = Conversation::new(Some("sy"));
        for text in ["aaaa", "bbbb", "cccc"] {
            chat.add_user(text);
            chat.add_answer("....");
        }
        chat.add_user("dddd");
        assert_eq!(chat.prompt(encode, 100, 10).unwrap().1, 0);
        assert_eq!(chat.prompt(encode, 20, 4).unwrap().1, 4);
        assert_eq!(contents(&chat), ["sy", "cccc", "....", "dddd"]);
        // The answer has less room than it would like.
        assert_eq!(chat.prompt(encode, 8, 4).unwrap().1, 2);
        assert_eq!(contents(&chat), ["sy", "dddd"]);
        assert!(chat.prompt(encode, 6, 1).unwrap_err().text().contains("6 tokens"));
    }

    #[test]
    fn retry_and_reset() {
        let mut chat = Conversation::new(None);
        assert_eq!(chat.take_last_user(), None);
        chat.add_user("a");
        chat.add_answer("b");
        assert_eq!(chat.take_last_user().as_deref(), Some("a"));
        assert_eq!(chat.n_messages(), 0);
        let mut chat = Conversation::new(Some("s"));
        chat.add_user("a");
        chat.reset();
        assert_eq!((chat.system(), chat.n_messages()), (Some("s"), 1));
    }

    #[test]
    fn files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chat.json");
        let mut chat = Conversation::new(Some("s"));
        chat.add_user("ä\n\"");
        chat.add_answer("b");
        chat.save(&path).unwrap();
        assert_eq!(Conversation::load(&path).unwrap(), chat);
        assert!(chat.save(&path).unwrap_err().text().contains("exists"));
        for broken in ["", "{}", "[3]", r#"[{"role":"me","content":"x"}]"#, r#"[{"role":"user"}]"#]
        {
            fsio::write_atomic(&path, broken).unwrap();
            let text = Conversation::load(&path).unwrap_err().text();
            assert!(text.contains("chat.json: ") && text.contains("JSON list"), "{text}");
        }
    }
}
