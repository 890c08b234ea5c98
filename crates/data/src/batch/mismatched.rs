//! Rows whose prompts are followed by the answers of other rows.

use crate::batch::{Batch, RowWriter};
use crate::cache::TokenRole;

impl Batch {
    /// The same prompts, each followed by the answer of the row before it; the first prompt by the answer of the last row. A
    /// row must have one sample, whose answer is its targets. Answers are cut where a row is full.
    ///
    /// `samples` has two samples for each row, those of its prompt and of its answer. Without a second row there is no other
    /// answer, and the batch is empty.
    #[must_use]
    pub fn mismatched(&self) -> Self {
        let t = self.sequence_length;
        if self.rows < 2 {
            return Self::with_capacity(0, t);
        }
        let lengths = self.lengths();
        // The position of the last token of each prompt predicts the first token of its answer.
        let ends: Vec<usize> = self
            .targets
            .chunks(t.max(1))
            .map(|row| row.iter().position(|target| *target >= 0).map_or(0, |at| at + 1))
            .collect();
        let pad = self.ids.iter().zip(&self.segments).find(|(_, segment)| **segment < 0);
        let pad = pad.map_or(0, |(id, _)| *id);
        let mut batch = Self::with_capacity(self.rows, t);
        let mut writer = RowWriter::new(&mut batch, None, pad);
        for row in 0..self.rows {
            let other = (row + self.rows - 1) % self.rows;
            let part = |row: usize, from: usize, to: usize| {
                self.ids.get(row * t + from..row * t + to).unwrap_or_default()
            };
            let prompt = part(row, 0, ends[row]);
            let answer = part(other, ends[other], lengths[other]);
            let ids: Vec<u32> = prompt.iter().chain(answer).take(t).copied().collect();
            writer.start_sample(self.samples.get(row).copied().unwrap_or_default());
            for (at, id) in ids.iter().enumerate() {
                let target = if at + 1 < prompt.len() { None } else { ids.get(at + 1).copied() };
                writer.push(*id, target, TokenRole::Document);
            }
            writer.end_row();
        }
        // Two samples for each row.
        let of = |row: usize| self.samples.get(row).copied().unwrap_or_default();
        batch.samples = (0..self.rows)
            .flat_map(|row| [of(row), of((row + self.rows - 1) % self.rows)])
            .collect();
        batch.sample_starts = (0..=self.rows).map(|row| 2 * row).collect();
        batch
    }
}
