//! One plain stream of tokens cut into windows, as nanoGPT trains: no marks within a file, one
//! segment a row, the cuts at another phase in each epoch, the windows shuffled.
//!
//! Between the documents of a source stands the end-of-text token; a single text file has none. A
//! window's last target is the next window's first token, so each token but the stream's first is a
//! target exactly once an epoch. The short pieces that a phase leaves at both ends share a row where
//! they fit. It deliberately never joins two sources.

use crate::cache::{SpecialIds, Store, TokenRole};
use crate::dataset::mixture::{Item, Mixture, Order};
use crate::dataset::row::RowWriter;
use crate::dataset::split::{Part, n_train};
use crate::dataset::{Layout, SourcePart};
use crate::error::{Error, Result};

/// The streams of every source on one side of the split.
#[derive(Debug)]
pub(crate) struct StreamRows {
    streams: Vec<Stream>,
    mixture: Mixture,
    sequence_length: u64,
}

/// One source's documents as one stream, of which a range is on this side.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    source: SourcePart,
    part: Part,
    /// Where each document starts in the stream, the separators in front of it included.
    starts: Vec<u64>,
    separator: Option<u32>,
    from: u64,
    to: u64,
}

impl Stream {
    pub(crate) fn new(source: SourcePart, part: Part, ids: &SpecialIds) -> Result<Self> {
        let separator =
            if part.n_samples() > 1 { Some(ids.end.ok_or(Error::NoEndToken)?) } else { None };
        let (mut starts, mut at) = (Vec::with_capacity(part.n_samples() as usize), 0);
        for document in part.samples() {
            starts.push(at);
            at += source.store.len(document) + 1;
        }
        // The last document has no separator behind it.
        let to = at.saturating_sub(1);
        Ok(Self { source, part, starts, separator, from: 0, to })
    }

    /// Splits the stream at the token where its last fraction begins.
    pub(crate) fn split_by_position(self, fraction: f64) -> (Self, Self) {
        let border = n_train(self.to, fraction);
        (Self { to: border, ..self.clone() }, Self { from: border, ..self })
    }

    /// Tokens on this side.
    fn n_tokens(&self) -> u64 {
        self.to - self.from
    }

    /// Targets on this side: every token but the first.
    fn n_targets(&self) -> u64 {
        self.n_tokens().saturating_sub(1)
    }

    /// The number, in this part, of the document that a position of the stream lies in.
    fn document_at(&self, at: u64) -> usize {
        self.starts.partition_point(|start| *start <= at).saturating_sub(1)
    }

    /// The token at a position of the stream, given the number of its document.
    fn token(&self, document: usize, at: u64) -> u32 {
        let store: &Store = &self.source.store;
        let sample = self.part.sample(document as u64);
        let within = at - self.starts.get(document).copied().unwrap_or(0);
        if within < store.len(sample) {
            store.token(store.start(sample) + within)
        } else {
            self.separator.unwrap_or(0)
        }
    }

    /// Writes the window of `n_targets` targets that starts at a position of this side.
    fn write(&self, start: u64, n_targets: u64, row: &mut RowWriter<'_>) {
        let mut document = self.document_at(self.from + start);
        row.start_sample(self.source.first_sample + self.part.sample(document as u64));
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
    pub(crate) fn new(streams: Vec<Stream>, order: Order, sequence_length: usize) -> Self {
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
        // Keys 0 and 1 are taken by orders; every pass over every source has its own phase.
        let n_streams = self.streams.len() as u64;
        let key = order.key(2 + item.copy * n_streams + item.source as u64).unwrap_or(0);
        (item, windows(n_targets, self.sequence_length, key % self.sequence_length, item.index))
    }
}

/// Start and number of targets; none where the number is 0.
type Window = (u64, u64);

/// What row number `row` of a pass holds, when the cuts lie `phase` targets behind the start.
///
/// There are `ceil(n / length)` rows at every phase: the full windows first, then what is left at
/// the two ends, in one row if it fits and else in two.
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

impl Layout for StreamRows {
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
        self.streams.iter().map(|stream| stream.part.n_samples()).sum()
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
