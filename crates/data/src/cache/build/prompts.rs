//! Prompts of a source: each row becomes one sample, the conversation up to where the assistant's words begin.
//!
//! It deliberately cuts nothing: a prompt that is too long is dropped by the dataset, whole.

use tokenizer::{ChatTemplate, Encoded, Message, Tokenizer};

use super::units::{Unit, marks_of, text_bytes};
use super::{RowCounter, SampleEnd, Writer};
use recipe::SampleKind;

use crate::error::Result;
use crate::place::Place;
use crate::row_problem::RowProblem;
use crate::rows::{Shape, chat_hash};
use crate::source::Row;

/// The prompt of one row.
pub(super) struct PromptUnit {
    place: Place,
    messages: Vec<Message>,
}

impl Unit for PromptUnit {
    const WANTED: SampleKind = SampleKind::Prompts;
    type Encoded = Encoded;

    fn of_row(
        shape: &Shape,
        row: &Row,
        _: &mut RowCounter,
    ) -> std::result::Result<Vec<Self>, RowProblem> {
        Ok(vec![Self { messages: shape.prompt_of(row)?, place: row.place.clone() }])
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn n_bytes(&self) -> usize {
        text_bytes(&self.messages)
    }

    fn encode(&self, tokenizer: &Tokenizer, template: &ChatTemplate) -> tokenizer::Result<Encoded> {
        tokenizer.encode_prompt_roles(&self.messages, template)
    }

    fn write(&self, encoded: &Encoded, writer: &mut Writer) -> Result<()> {
        writer.write_tokens(&encoded.ids)?;
        writer.write_marks(&marks_of(encoded))?;
        let hash = chat_hash(&self.messages);
        let (place, n_bytes) = (self.place.clone(), self.n_bytes() as u64);
        writer.end_sample(&SampleEnd { place, hash, group: hash, n_bytes })
    }
}
