//! Pairs of a source: each row becomes two samples, the chosen text followed by the rejected text.
//!
//! Both are encoded by [`tokenizer::Tokenizer::encode_for_scoring`], which also encodes the texts that are scored later.
//! The dataset truncates and drops pairs.

use tokenizer::{ChatTemplate, Encoded, Tokenizer};

use super::examples::{Example, role_bytes, text_bytes};
use super::{RowCounter, SampleEnd, Writer};
use recipe::SampleKind;

use crate::error::Result;
use crate::location::Location;
use crate::row_problem::RowProblem;
use crate::rows::{Pair, RowFormat, chat_hash, text_hash};
use crate::source::Row;

/// The pair of one row.
pub(super) struct PairExample {
    location: Location,
    pair: Pair,
    margin: Option<f32>,
}

impl Example for PairExample {
    const KIND: SampleKind = SampleKind::Pairs;
    type Encoded = [Encoded; 2];

    fn from_row(
        row_format: &RowFormat,
        row: &Row,
        _: &mut RowCounter,
    ) -> std::result::Result<Vec<Self>, RowProblem> {
        let (pair, margin) = (row_format.pair_of(row)?, row_format.margin_of(row)?);
        Ok(vec![Self { pair, margin, location: row.location.clone() }])
    }

    fn location(&self) -> &Location {
        &self.location
    }

    fn n_bytes(&self) -> usize {
        self.pair.iter().map(|messages| text_bytes(&messages.messages)).sum()
    }

    /// Encodes both texts or fails, so that no half of a pair is written.
    fn encode(
        &self,
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
    ) -> tokenizer::Result<[Encoded; 2]> {
        let [chosen, rejected] = &self.pair;
        let one = |messages| tokenizer.encode_for_scoring(messages, template);
        Ok([one(chosen)?, one(rejected)?])
    }

    fn write(&self, encoded: &[Encoded; 2], writer: &mut Writer) -> Result<()> {
        let hashes = self.pair.each_ref().map(chat_hash);
        writer.write_margin(self.margin.unwrap_or(0.0))?;
        // Both texts of a pair are in the same split, whatever other pairs contain them.
        let group = text_hash(&format!("{:016x}{:016x}", hashes[0], hashes[1]));
        for ((messages, encoded), hash) in self.pair.iter().zip(encoded).zip(hashes) {
            writer.write_tokens(&encoded.ids)?;
            writer.write_roles(&role_bytes(encoded))?;
            let (location, n_bytes) =
                (self.location.clone(), text_bytes(&messages.messages) as u64);
            writer.end_sample(&SampleEnd { location, hash, group, n_bytes })?;
        }
        Ok(())
    }
}
