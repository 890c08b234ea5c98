//! Texts that pairs are drawn from: each row that fits one side becomes one sample, with its side beside it.
//!
//! It deliberately draws nothing: which texts are held out must be known first, and that is the dataset's.

use tokenizer::{ChatTemplate, Encoded, Tokenizer};

use super::units::{Unit, marks_of, text_bytes};
use super::{RowCounter, SampleEnd, Writer};
use recipe::SampleKind;

use crate::error::Result;
use crate::place::Place;
use crate::row_problem::RowProblem;
use crate::rows::{Pooled, PooledText, Shape, Side, chat_hash, text_hash};
use crate::source::Row;

/// The text of one row.
pub(super) struct PoolUnit {
    place: Place,
    side: Side,
    text: PooledText,
}

impl Unit for PoolUnit {
    const WANTED: SampleKind = SampleKind::Pairs;
    type Encoded = Encoded;

    fn of_row(
        shape: &Shape,
        row: &Row,
        counter: &mut RowCounter,
    ) -> std::result::Result<Vec<Self>, RowProblem> {
        let pools = &mut counter.pools;
        match shape.pooled(row)? {
            Pooled::Neither => pools.neither += 1,
            Pooled::Both => pools.both += 1,
            Pooled::Empty => counter.n_empty += 1,
            Pooled::On(side, text) => {
                match side {
                    Side::Chosen => pools.chosen += 1,
                    Side::Rejected => pools.rejected += 1,
                }
                return Ok(vec![Self { place: row.place.clone(), side, text }]);
            }
        }
        Ok(Vec::new())
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn n_bytes(&self) -> usize {
        text_bytes(&self.text.messages)
    }

    fn encode(&self, tokenizer: &Tokenizer, template: &ChatTemplate) -> tokenizer::Result<Encoded> {
        tokenizer.encode_for_scoring(&self.text.messages, template)
    }

    fn write(&self, encoded: &Encoded, writer: &mut Writer) -> Result<()> {
        writer.write_tokens(&encoded.ids)?;
        writer.write_marks(&marks_of(encoded))?;
        writer.write_side(self.side)?;
        writer.end_sample(&SampleEnd {
            place: self.place.clone(),
            hash: chat_hash(&self.text.messages),
            // Rows with the same text are held out together, whichever side they are on.
            group: text_hash(&self.text.text),
            n_bytes: self.n_bytes() as u64,
        })
    }
}
