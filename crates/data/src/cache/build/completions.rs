//! Labelled answers of a source: each row becomes one sample with its label, and each pair two.
//!
//! They are encoded as the texts of pairs are, up to the end token of the answer. The dataset truncates and drops them.

use tokenizer::{ChatTemplate, Encoded, Tokenizer};

use super::examples::{Example, role_bytes, text_bytes};
use super::{RowCounter, SampleEnd, Writer};
use recipe::SampleKind;

use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::location::Location;
use crate::row_problem::RowProblem;
use crate::rows::{Label, RowFormat, chat_hash, text_hash};
use crate::source::Row;

/// One answer of a row.
pub(super) struct CompletionExample {
    location: Location,
    label: Label,
    dialogue: Dialogue,
    /// Hash that decides the split.
    group: u64,
}

impl Example for CompletionExample {
    const KIND: SampleKind = SampleKind::Completions;
    type Encoded = Encoded;

    fn from_row(
        row_format: &RowFormat,
        row: &Row,
        _: &mut RowCounter,
    ) -> std::result::Result<Vec<Self>, RowProblem> {
        let completions = row_format.completions_of(row)?;
        // The answers of a pair are in the same split, the one that stages on pairs put them into.
        let hashes: Vec<u64> =
            completions.iter().map(|(_, dialogue)| chat_hash(dialogue)).collect();
        let group = match hashes.as_slice() {
            [chosen, rejected] => text_hash(&format!("{chosen:016x}{rejected:016x}")),
            others => others.first().copied().unwrap_or_default(),
        };
        let example =
            |(label, dialogue)| Self { location: row.location.clone(), label, dialogue, group };
        Ok(completions.into_iter().map(example).collect())
    }

    fn location(&self) -> &Location {
        &self.location
    }

    fn n_bytes(&self) -> usize {
        text_bytes(&self.dialogue.messages)
    }

    fn encode(&self, tokenizer: &Tokenizer, template: &ChatTemplate) -> tokenizer::Result<Encoded> {
        tokenizer.encode_for_scoring(&self.dialogue, template)
    }

    fn write(&self, encoded: &Encoded, writer: &mut Writer) -> Result<()> {
        writer.write_tokens(&encoded.ids)?;
        writer.write_roles(&role_bytes(encoded))?;
        writer.write_label(self.label)?;
        writer.end_sample(&SampleEnd {
            location: self.location.clone(),
            hash: chat_hash(&self.dialogue),
            group: self.group,
            n_bytes: self.n_bytes() as u64,
        })
    }
}
