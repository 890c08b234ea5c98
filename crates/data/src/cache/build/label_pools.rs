//! Labelled texts: each row that matches one label becomes one sample. The dataset splits them first, then draws pairs.

use tokenizer::{ChatTemplate, Encoded, Tokenizer};

use super::examples::{Example, role_bytes, text_bytes};
use super::{RowCounter, SampleEnd, Writer};
use recipe::SampleKind;

use crate::error::Result;
use crate::location::Location;
use crate::row_problem::RowProblem;
use crate::rows::{Label, PoolEntry, PoolText, RowFormat, chat_hash, text_hash};
use crate::source::Row;

/// Labelled text of one row.
pub(super) struct LabelledExample {
    location: Location,
    label: Label,
    text: PoolText,
}

impl Example for LabelledExample {
    const KIND: SampleKind = SampleKind::Pairs;
    type Encoded = Encoded;

    fn from_row(
        row_format: &RowFormat,
        row: &Row,
        counter: &mut RowCounter,
    ) -> std::result::Result<Vec<Self>, RowProblem> {
        let pools = &mut counter.pools;
        match row_format.pool_entry(row)? {
            PoolEntry::Neither => pools.neither += 1,
            PoolEntry::Both => pools.both += 1,
            PoolEntry::Empty => counter.n_empty += 1,
            PoolEntry::Text(label, text) => {
                match label {
                    Label::Chosen => pools.chosen += 1,
                    Label::Rejected => pools.rejected += 1,
                }
                return Ok(vec![Self { location: row.location.clone(), label, text }]);
            }
        }
        Ok(Vec::new())
    }

    fn location(&self) -> &Location {
        &self.location
    }

    fn n_bytes(&self) -> usize {
        text_bytes(&self.text.dialogue.messages)
    }

    fn encode(&self, tokenizer: &Tokenizer, template: &ChatTemplate) -> tokenizer::Result<Encoded> {
        tokenizer.encode_for_scoring(&self.text.dialogue, template)
    }

    fn write(&self, encoded: &Encoded, writer: &mut Writer) -> Result<()> {
        writer.write_tokens(&encoded.ids)?;
        writer.write_roles(&role_bytes(encoded))?;
        writer.write_label(self.label)?;
        writer.end_sample(&SampleEnd {
            location: self.location.clone(),
            hash: chat_hash(&self.text.dialogue),
            // Rows with the same text are in the same split, whatever their labels.
            group: text_hash(&self.text.text),
            n_bytes: self.n_bytes() as u64,
        })
    }
}
