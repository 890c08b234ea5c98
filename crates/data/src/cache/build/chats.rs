//! Chats of a source: one per row, or one per assistant message of a tree. The dataset truncates them.

use tokenizer::{ChatTemplate, Encoded, Message, Role, Tokenizer};

use super::examples::{Example, role_bytes, text_bytes};
use super::{RowCounter, SampleEnd, Writer};
use recipe::SampleKind;

use crate::error::Result;
use crate::location::Location;
use crate::row_problem::RowProblem;
use crate::rows::{Chat, RowFormat, chat_hash};
use crate::source::Row;

/// One chat.
pub(super) struct ChatExample {
    location: Location,
    chat: Chat,
}

impl Example for ChatExample {
    const KIND: SampleKind = SampleKind::Chats;
    type Encoded = Encoded;

    fn from_row(
        row_format: &RowFormat,
        row: &Row,
        counter: &mut RowCounter,
    ) -> std::result::Result<Vec<Self>, RowProblem> {
        if !row_format.is_desirable(row)? {
            counter.n_undesirable += 1;
            return Ok(Vec::new());
        }
        let mut chats = row_format.chats_of(row)?;
        let n_chats = chats.len();
        chats.retain(|chat| !chat.dialogue.messages.iter().any(is_empty_target));
        counter.n_empty += (n_chats - chats.len()) as u64;
        let location = &row.location;
        Ok(chats.into_iter().map(|chat| Self { location: location.clone(), chat }).collect())
    }

    fn location(&self) -> &Location {
        &self.location
    }

    fn n_bytes(&self) -> usize {
        text_bytes(&self.chat.dialogue.messages)
    }

    fn encode(&self, tokenizer: &Tokenizer, template: &ChatTemplate) -> tokenizer::Result<Encoded> {
        let dialogue = &self.chat.dialogue;
        if self.chat.last_turn_only {
            return tokenizer.encode_answer(dialogue, template);
        }
        match tokenizer.encode_chat(dialogue, template) {
            // The template may rewrite earlier answers if none of them is a target.
            Err(tokenizer::Error::Spans { .. }) if only_last_is_target(&dialogue.messages) => {
                tokenizer.encode_answer(dialogue, template)
            }
            encoded => encoded,
        }
    }

    fn check_prompts(
        &self,
        encoded: &Encoded,
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
    ) -> tokenizer::Result<()> {
        tokenizer.check_prompts(&self.chat.dialogue, template, encoded)
    }

    fn write(&self, encoded: &Encoded, writer: &mut Writer) -> Result<()> {
        writer.write_tokens(&encoded.ids)?;
        writer.write_roles(&role_bytes(encoded))?;
        let hash = chat_hash(&self.chat.dialogue);
        writer.end_sample(&SampleEnd {
            location: self.location.clone(),
            hash,
            group: self.chat.group.unwrap_or(hash),
            n_bytes: self.n_bytes() as u64,
        })
    }
}

/// Whether the last message is the only target of a chat with several answers.
fn only_last_is_target(messages: &[Message]) -> bool {
    let is_target = |message: &Message| message.role == Role::Assistant && message.is_target;
    messages
        .split_last()
        .is_some_and(|(last, context)| is_target(last) && !context.iter().any(is_target))
}

/// Whether a message is a target without any text: training on it would teach to say nothing.
fn is_empty_target(message: &Message) -> bool {
    message.role == Role::Assistant
        && message.is_target
        && message.content.trim().is_empty()
        && message.fields.keys().all(|field| field == "content")
}
