//! Chats of a source: each row is one, or as many as a tree has answers.
//!
//! It deliberately keeps every chat whole: cutting to a row's length is the dataset's.

use tokenizer::{ChatTemplate, Encoded, Message, Tokenizer};

use super::units::{Unit, marks_of, text_bytes};
use super::{RowCounter, SampleEnd, Writer};
use recipe::SampleKind;

use crate::error::Result;
use crate::place::Place;
use crate::row_problem::RowProblem;
use crate::rows::{Shape, chat_hash};
use crate::source::Row;

/// One chat.
pub(super) struct ChatUnit {
    place: Place,
    group: Option<u64>,
    messages: Vec<Message>,
}

impl Unit for ChatUnit {
    const WANTED: SampleKind = SampleKind::Chats;
    type Encoded = Encoded;

    fn of_row(
        shape: &Shape,
        row: &Row,
        _: &mut RowCounter,
    ) -> std::result::Result<Vec<Self>, RowProblem> {
        let chats = shape.chats_of(row)?.into_iter();
        let place = &row.place;
        let unit = |chat: crate::rows::Chat| Self {
            place: place.clone(),
            group: chat.group,
            messages: chat.messages,
        };
        Ok(chats.map(unit).collect())
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn n_bytes(&self) -> usize {
        text_bytes(&self.messages)
    }

    fn encode(&self, tokenizer: &Tokenizer, template: &ChatTemplate) -> tokenizer::Result<Encoded> {
        tokenizer.encode_chat(&self.messages, template)
    }

    fn write(&self, encoded: &Encoded, writer: &mut Writer) -> Result<()> {
        writer.write_tokens(&encoded.ids)?;
        writer.write_marks(&marks_of(encoded))?;
        let hash = chat_hash(&self.messages);
        writer.end_sample(&SampleEnd {
            place: self.place.clone(),
            hash,
            group: self.group.unwrap_or(hash),
            n_bytes: self.n_bytes() as u64,
        })
    }
}
