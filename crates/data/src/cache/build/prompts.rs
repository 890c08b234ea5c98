//! Prompts of a source: each row becomes one sample, the conversation up to the start of the assistant message.
//! The dataset drops prompts that are too long.

use tokenizer::{ChatTemplate, Encoded, Tokenizer};

use super::examples::{Example, role_bytes, text_bytes};
use super::{RowCounter, SampleEnd, Writer};
use recipe::SampleKind;

use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::location::Location;
use crate::row_problem::RowProblem;
use crate::rows::{RowFormat, chat_hash};
use crate::source::Row;

/// Prompt of one row.
pub(super) struct PromptExample {
    location: Location,
    dialogue: Dialogue,
    /// Texts that are stored next to the prompt.
    answers: Vec<Option<String>>,
}

impl Example for PromptExample {
    const KIND: SampleKind = SampleKind::Prompts;
    type Encoded = Encoded;

    fn from_row(
        row_format: &RowFormat,
        row: &Row,
        _: &mut RowCounter,
    ) -> std::result::Result<Vec<Self>, RowProblem> {
        Ok(vec![Self {
            dialogue: row_format.prompt_of(row)?,
            answers: row_format.answers_of(row)?,
            location: row.location.clone(),
        }])
    }

    fn location(&self) -> &Location {
        &self.location
    }

    fn n_bytes(&self) -> usize {
        let answers = self.answers.iter().flatten().map(String::len);
        text_bytes(&self.dialogue.messages) + answers.sum::<usize>()
    }

    fn encode(&self, tokenizer: &Tokenizer, template: &ChatTemplate) -> tokenizer::Result<Encoded> {
        tokenizer.encode_prompt_roles(&self.dialogue, template)
    }

    fn write(&self, encoded: &Encoded, writer: &mut Writer) -> Result<()> {
        writer.write_tokens(&encoded.ids)?;
        writer.write_roles(&role_bytes(encoded))?;
        writer.write_answers(&self.answers)?;
        let hash = chat_hash(&self.dialogue);
        let n_bytes = text_bytes(&self.dialogue.messages) as u64;
        let location = self.location.clone();
        writer.end_sample(&SampleEnd { location, hash, group: hash, n_bytes })
    }
}
