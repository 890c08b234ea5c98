//! Chats of a source: one per row, or one per assistant message of a tree. The dataset truncates them.

use tokenizer::{ChatTemplate, Encoded, Message, Tokenizer};

use super::examples::{Example, role_bytes, text_bytes};
use super::{RowCounter, SampleEnd, Writer};
use recipe::SampleKind;

use crate::error::Result;
use crate::location::Location;
use crate::row_problem::RowProblem;
use crate::rows::{RowFormat, chat_hash};
use crate::source::Row;

/// One chat.
pub(super) struct ChatExample {
    location: Location,
    group: Option<u64>,
    messages: Vec<Message>,
}

impl Example for ChatExample {
    const KIND: SampleKind = SampleKind::Chats;
    type Encoded = Encoded;

    fn from_row(
        row_format: &RowFormat,
        row: &Row,
        _: &mut RowCounter,
    ) -> std::result::Result<Vec<Self>, RowProblem> {
        let chats = row_format.chats_of(row)?.into_iter();
        let location = &row.location;
        let example = |chat: crate::rows::Chat| Self {
            location: location.clone(),
            group: chat.group,
            messages: chat.messages,
        };
        Ok(chats.map(example).collect())
    }

    fn location(&self) -> &Location {
        &self.location
    }

    fn n_bytes(&self) -> usize {
        text_bytes(&self.messages)
    }

    fn encode(&self, tokenizer: &Tokenizer, template: &ChatTemplate) -> tokenizer::Result<Encoded> {
        tokenizer.encode_chat(&self.messages, template)
    }

    fn write(&self, encoded: &Encoded, writer: &mut Writer) -> Result<()> {
        writer.write_tokens(&encoded.ids)?;
        writer.write_roles(&role_bytes(encoded))?;
        let hash = chat_hash(&self.messages);
        writer.end_sample(&SampleEnd {
            location: self.location.clone(),
            hash,
            group: self.group.unwrap_or(hash),
            n_bytes: self.n_bytes() as u64,
        })
    }
}
