//! One stream of tokens per source, cut into shuffled windows, as in nanoGPT. A row is one segment, and the windows start
//! at a different phase in each epoch.
//!
//! The end-of-text token separates the documents of a source; a single text file contains none. The last target of a
//! window is the first token of the next, so each token but the first of the stream is a target exactly once per epoch.
//! The short windows that a phase leaves at both ends share a row where they fit. Two sources never share a window.

use recipe::SplitBy;

use crate::batch::RowWriter;
use crate::cache::{SpecialIds, TokenRole, TokenStore};
use crate::dataset::mixture::{Item, Mixture, Order};
use crate::dataset::train_eval_split::{Holdout, SampleSet, n_train, sample_split};
use crate::dataset::{DatasetSource, SplitRows};
use crate::error::Result;

/// Streams of every source in one split.
#[derive(Debug)]
pub(crate) struct StreamRows {
    streams: Vec<Stream>,
    mixture: Mixture,
    sequence_length: u64,
}

/// Documents of one source as one stream, of which a range belongs to this split.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    source: DatasetSource,
    documents: SampleSet,
    /// Start of each document in the stream, the separators before it included.
    starts: Vec<u64>,
    separator: Option<u32>,
    from: u64,
    to: u64,
}

impl Stream {
    pub(crate) fn new(
        source: DatasetSource,
        documents: SampleSet,
        ids: &SpecialIds,
    ) -> Result<Self> {
        let separator = if documents.n_samples() > 1 { Some(ids.require_end()?) } else { None };
        let (mut starts, mut at) = (Vec::with_capacity(documents.n_samples() as usize), 0);
        for document in documents.samples() {
            starts.push(at);
            at += source.store.len(document) + 1;
        }
        // No separator follows the last document.
        let to = at.saturating_sub(1);
        Ok(Self { source, documents, starts, separator, from: 0, to })
    }

    /// Splits the stream at the token where its last fraction begins.
    pub(crate) fn split_by_position(self, fraction: f64) -> (Self, Self) {
        let border = n_train(self.to, fraction);
        (Self { to: border, ..self.clone() }, Self { from: border, ..self })
    }

    /// Number of tokens in this split.
    fn n_tokens(&self) -> u64 {
        self.to - self.from
    }

    /// Number of targets in this split: every token but the first.
    fn n_targets(&self) -> u64 {
        self.n_tokens().saturating_sub(1)
    }

    /// Index of the document that contains a position of the stream.
    fn document_at(&self, at: u64) -> usize {
        self.starts.partition_point(|start| *start <= at).saturating_sub(1)
    }

    /// Token at a position of the stream, given the index of its document.
    fn token(&self, document: usize, at: u64) -> u32 {
        let store: &TokenStore = &self.source.store;
        let sample = self.documents.sample(document as u64);
        let within = at - self.starts.get(document).copied().unwrap_or(0);
        if within < store.len(sample) {
            store.token(store.start(sample) + within)
        } else {
            self.separator.unwrap_or(0)
        }
    }

    /// Writes the window of `n_targets` targets that starts at a position of this split.
    fn write(&self, start: u64, n_targets: u64, row: &mut RowWriter<'_>) {
        let mut document = self.document_at(self.from + start);
        row.start_sample(self.source.first_sample + self.documents.sample(document as u64));
        let mut id = self.token(document, self.from + start);
        for at in self.from + start + 1..=self.from + start + n_targets {
            while self.starts.get(document + 1).is_some_and(|next| *next <= at) {
                document += 1;
            }
            let next = self.token(document, at);
            row.push(id, Some(next), TokenRole::Document);
            id = next;
        }
    }
}

impl StreamRows {
    /// Rows of the training set, in `order`, and of the validation set, in file order.
    pub(super) fn split(
        sources: &[DatasetSource],
        holdout: Option<Holdout>,
        sequence_length: usize,
        ids: &SpecialIds,
        order: Order,
    ) -> Result<(Self, Self)> {
        let (train, eval): (Vec<Stream>, Vec<Stream>) = match holdout {
            Some(Holdout { fraction, by: SplitBy::Position }) => {
                let streams = sources.iter().map(|source| {
                    let all = SampleSet::Range(0..source.store.n_samples());
                    let stream = Stream::new(source.clone(), all, ids)?;
                    Ok(stream.split_by_position(fraction))
                });
                streams.collect::<Result<Vec<_>>>()?.into_iter().unzip()
            }
            holdout => {
                let splits = sample_split(sources, holdout)?;
                let streams = sources.iter().zip(splits).map(|(source, split)| {
                    let train = Stream::new(source.clone(), split.train, ids)?;
                    Ok((train, Stream::new(source.clone(), split.eval, ids)?))
                });
                streams.collect::<Result<Vec<_>>>()?.into_iter().unzip()
            }
        };
        let rows = |streams, order| Self::new(streams, order, sequence_length);
        Ok((rows(train, order), rows(eval, Order::Fixed)))
    }

    fn new(streams: Vec<Stream>, order: Order, sequence_length: usize) -> Self {
        let sequence_length = sequence_length as u64;
        let counts: Vec<(u64, f64)> = streams
            .iter()
            .map(|stream| (stream.n_targets().div_ceil(sequence_length), stream.source.weight))
            .collect();
        Self { mixture: Mixture::new(&counts, order), streams, sequence_length }
    }

    fn item(&self, epoch: u64, row: u64) -> (Item, [Window; 2]) {
        let order = self.mixture.epoch(epoch);
        let item = order.item(row);
        let n_targets = self.streams[item.source].n_targets();
        // Keys 0 and 1 belong to the orders; every pass over every source has its own phase.
        let n_streams = self.streams.len() as u64;
        let key = order.key(2 + item.pass * n_streams + item.source as u64).unwrap_or(0);
        (item, windows(n_targets, self.sequence_length, key % self.sequence_length, item.index))
    }
}

/// Start and number of targets; empty if the number is 0.
type Window = (u64, u64);

/// Windows in row `row` of a pass whose first full window starts at target `phase`.
///
/// Every phase has `ceil(n / length)` rows: the full windows first, then the rest at both ends, in one row if it fits and
/// otherwise in two.
fn windows(n_targets: u64, length: u64, phase: u64, row: u64) -> [Window; 2] {
    let phase = if n_targets < length { 0 } else { phase };
    let n_full = (n_targets - phase) / length;
    if row < n_full {
        return [(phase + row * length, length), (0, 0)];
    }
    let tail = (phase + n_full * length, n_targets - phase - n_full * length);
    let head = (0, phase);
    if head.1 + tail.1 <= length {
        return if head.1 == 0 { [tail, (0, 0)] } else { [head, tail] };
    }
    if row == n_full { [head, (0, 0)] } else { [tail, (0, 0)] }
}

impl SplitRows for StreamRows {
    fn n_rows(&self, epoch: u64) -> u64 {
        self.mixture.epoch(epoch).n_items()
    }

    fn is_constant(&self) -> bool {
        self.mixture.is_constant()
    }

    fn fill(&self, epoch: u64, row: u64, out: &mut RowWriter<'_>) {
        let (item, windows) = self.item(epoch, row);
        for (start, n_targets) in windows.into_iter().filter(|window| window.1 > 0) {
            self.streams[item.source].write(start, n_targets, out);
        }
        out.end_row();
    }

    fn n_targets(&self, epoch: u64, row: u64) -> u64 {
        let (_, windows) = self.item(epoch, row);
        windows.iter().map(|window| window.1).sum()
    }

    fn epoch_targets(&self, epoch: u64) -> u64 {
        if self.is_constant() {
            let streams = self.streams.iter().enumerate();
            return streams
                .map(|(s, stream)| self.mixture.whole_passes(s) * stream.n_targets())
                .sum();
        }
        (0..self.n_rows(epoch)).map(|row| self.n_targets(epoch, row)).sum()
    }

    fn n_samples(&self) -> u64 {
        self.streams.iter().map(|stream| stream.documents.n_samples()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::windows;

    #[test]
    fn every_phase_covers_every_target_once_in_the_same_number_of_rows() {
        for n_targets in 1..40_u64 {
            for length in 1..9_u64 {
                for phase in 0..length {
                    let mut seen = vec![0; n_targets as usize];
                    for row in 0..n_targets.div_ceil(length) {
                        let pieces = windows(n_targets, length, phase, row);
                        assert!(pieces.iter().map(|piece| piece.1).sum::<u64>() <= length);
                        assert!(pieces[0].1 > 0, "{n_targets} {length} {phase} {row}");
                        for (start, n) in pieces {
                            (start..start + n).for_each(|at| seen[at as usize] += 1);
                        }
                    }
                    assert!(seen.iter().all(|n| *n == 1), "{n_targets} {length} {phase}");
                }
            }
        }
    }
}
