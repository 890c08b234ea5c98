//! Documents packed into rows, each after its prefix and with the end-of-text token as its last target. Attention and
//! positions restart at every document.
//!
//! If the prefix is the end-of-text token itself, as for GPT-2 and our own tokenizers, adjacent documents share it: it is
//! the last target of one and the first input of the next. The documents of an epoch, in shuffled order, form one line of
//! positions that is cut into rows. A document that crosses a row boundary continues in the next row as a new segment, and
//! its last position in the first row still predicts the document's next token, so no target is lost.
//!
//! The order is not stored: the start of every 128th document is enough to find a row.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use recipe::SplitBy;

use crate::batch::RowWriter;
use crate::cache::{SpecialIds, TokenRole};
use crate::dataset::mixture::{Item, Mixture, Order};
use crate::dataset::train_eval_split::{Holdout, SampleSet, Split, n_train, sample_split};
use crate::dataset::{DatasetSource, SplitRows};
use crate::error::Result;

/// Documents between two stored starts.
const STRIDE: u64 = 128;
/// Epochs whose starts are cached; a batch may span two.
const EPOCHS_KEPT: usize = 3;

/// Documents of every source in one split.
#[derive(Debug)]
pub(crate) struct DocumentRows {
    sources: Vec<Documents>,
    mixture: Mixture,
    sequence_length: u64,
    prefix: Vec<u32>,
    end: u32,
    epochs: Mutex<Vec<Arc<EpochStarts>>>,
}

/// Documents of one source; the first and the last may be partial.
#[derive(Clone, Debug)]
pub(crate) struct Documents {
    source: DatasetSource,
    documents: SampleSet,
    /// First position of the first document that belongs to this split.
    from: u64,
    /// End position within the last document, if its rest belongs to the other split.
    to: Option<u64>,
}

/// Starts of the documents of an epoch in its line of positions.
#[derive(Debug)]
struct EpochStarts {
    epoch: u64,
    n_positions: u64,
    /// The start of every 128th document.
    starts: Vec<u64>,
}

impl Documents {
    pub(crate) fn whole(source: DatasetSource, documents: SampleSet) -> Self {
        Self { source, documents, from: 0, to: None }
    }

    /// Splits a source at the token where its last fraction begins; one document may be in both splits.
    pub(crate) fn split_by_position(
        source: &DatasetSource,
        n_prefix: u64,
        fraction: f64,
    ) -> (Self, Self) {
        let n = source.store.n_samples();
        let all = Self::whole(source.clone(), SampleSet::Range(0..n));
        let n_positions: u64 = (0..n).map(|document| all.n_positions(document, n_prefix)).sum();
        let mut left = n_train(n_positions, fraction);
        let mut document = 0;
        while document < n {
            let length = all.n_positions(document, n_prefix);
            if left < length {
                break;
            }
            left -= length;
            document += 1;
        }
        let cut = (left > 0).then_some(left);
        let train_end = document + u64::from(cut.is_some());
        let part = |range, from, to| {
            let documents = SampleSet::Range(range);
            Self { source: source.clone(), documents, from, to }
        };
        (part(0..train_end, 0, cut), part(document..n, left, None))
    }

    pub(crate) fn n_documents(&self) -> u64 {
        self.documents.n_samples()
    }

    /// Positions of document `i` that belong to this split, as a range within the document.
    fn range(&self, i: u64, n_prefix: u64) -> Range<u64> {
        let last = self.n_documents() - 1;
        let from = if i == 0 { self.from } else { 0 };
        let whole = self.source.store.len(self.documents.sample(i)) + n_prefix;
        let to = if i == last { self.to.unwrap_or(whole) } else { whole };
        from..to
    }

    fn n_positions(&self, i: u64, n_prefix: u64) -> u64 {
        let range = self.range(i, n_prefix);
        range.end - range.start
    }
}

impl DocumentRows {
    /// Rows of the training set, in `order`, and of the validation set, in file order.
    pub(super) fn split(
        sources: &[DatasetSource],
        holdout: Option<Holdout>,
        sequence_length: usize,
        ids: &SpecialIds,
        order: Order,
    ) -> Result<(Self, Self)> {
        let n_prefix = ids.prefix.len() as u64;
        let (train, eval): (Vec<_>, Vec<_>) = match holdout {
            Some(Holdout { fraction, by: SplitBy::Position }) => sources
                .iter()
                .map(|source| Documents::split_by_position(source, n_prefix, fraction))
                .unzip(),
            holdout => {
                let splits = sample_split(sources, holdout)?;
                let documents = |(source, split): (&DatasetSource, Split)| {
                    let whole = |documents| Documents::whole(source.clone(), documents);
                    (whole(split.train), whole(split.eval))
                };
                sources.iter().zip(splits).map(documents).unzip()
            }
        };
        let rows = |documents, order| Self::new(documents, order, sequence_length, ids);
        Ok((rows(train, order)?, rows(eval, Order::Fixed)?))
    }

    fn new(
        documents: Vec<Documents>,
        order: Order,
        sequence_length: usize,
        ids: &SpecialIds,
    ) -> Result<Self> {
        let counts: Vec<(u64, f64)> =
            documents.iter().map(|source| (source.n_documents(), source.source.weight)).collect();
        Ok(Self {
            sources: documents,
            mixture: Mixture::new(&counts, order),
            sequence_length: sequence_length as u64,
            prefix: ids.prefix.clone(),
            end: ids.require_end()?,
            epochs: Mutex::new(Vec::new()),
        })
    }

    fn n_prefix(&self) -> u64 {
        self.prefix.len() as u64
    }

    /// Positions of the document that an item shows.
    fn item_range(&self, item: Item) -> Range<u64> {
        self.sources[item.source].range(item.index, self.n_prefix())
    }

    fn item_positions(&self, item: Item) -> u64 {
        let range = self.item_range(item);
        range.end - range.start
    }

    fn starts(&self, epoch: u64) -> Arc<EpochStarts> {
        let mut kept = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(starts) = kept.iter().find(|starts| starts.epoch == epoch) {
            return Arc::clone(starts);
        }
        let (mut starts, mut n_positions) = (Vec::new(), 0);
        for (i, item) in self.mixture.epoch(epoch).items().enumerate() {
            if (i as u64).is_multiple_of(STRIDE) {
                starts.push(n_positions);
            }
            n_positions += self.item_positions(item);
        }
        let starts = Arc::new(EpochStarts { epoch, n_positions, starts });
        if kept.len() >= EPOCHS_KEPT {
            kept.remove(0);
        }
        kept.push(Arc::clone(&starts));
        starts
    }

    /// Writes the positions `range` of a document as one segment.
    fn write(&self, item: Item, range: Range<u64>, row: &mut RowWriter<'_>) {
        let source = &self.sources[item.source];
        let store = &source.source.store;
        let document = source.documents.sample(item.index);
        let (first, n_prefix) = (store.start(document), self.n_prefix());
        // The sequence is prefix, text, end; position j reads element j and predicts element j + 1.
        let element = |j: u64| match self.prefix.get(j as usize) {
            Some(id) => *id,
            None if j < n_prefix + store.len(document) => store.token(first + j - n_prefix),
            None => self.end,
        };
        row.start_sample(source.source.first_sample + document);
        for j in range {
            let target = (j + 1 >= n_prefix).then(|| element(j + 1));
            row.push(element(j), target, TokenRole::Document);
        }
    }

    /// Number of targets in a range. Prefix tokens but the last predict prefix tokens, which are no targets.
    fn targets_in(&self, range: &Range<u64>) -> u64 {
        let first = self.n_prefix().saturating_sub(1);
        range.end.saturating_sub(range.start.max(first))
    }
}

impl SplitRows for DocumentRows {
    fn n_rows(&self, epoch: u64) -> u64 {
        self.starts(epoch).n_positions.div_ceil(self.sequence_length)
    }

    fn is_constant(&self) -> bool {
        self.mixture.is_constant()
    }

    fn fill(&self, epoch: u64, row: u64, out: &mut RowWriter<'_>) {
        self.visit(epoch, row, &mut |item, range| self.write(item, range, out));
        out.end_row();
    }

    fn n_targets(&self, epoch: u64, row: u64) -> u64 {
        let mut n_targets = 0;
        self.visit(epoch, row, &mut |_, range| n_targets += self.targets_in(&range));
        n_targets
    }

    fn epoch_targets(&self, epoch: u64) -> u64 {
        let order = self.mixture.epoch(epoch);
        let ranges = order.items().map(|item| self.item_range(item));
        ranges.map(|range| self.targets_in(&range)).sum()
    }

    fn n_samples(&self) -> u64 {
        self.sources.iter().map(Documents::n_documents).sum()
    }
}

impl DocumentRows {
    /// Visits the documents of a row: the item and its positions in the row.
    fn visit(&self, epoch: u64, row: u64, visit: &mut dyn FnMut(Item, Range<u64>)) {
        let starts = self.starts(epoch);
        let n_rows = starts.n_positions.div_ceil(self.sequence_length);
        // Rows are shuffled too, so that one step rarely contains neighbouring rows of one long document.
        let order = self.mixture.epoch(epoch);
        let row = order.row(n_rows, row);
        let from = row * self.sequence_length;
        let to = (from + self.sequence_length).min(starts.n_positions);
        let block = starts.starts.partition_point(|start| *start <= from).saturating_sub(1);
        let mut at = starts.starts.get(block).copied().unwrap_or(0);
        let mut i = block as u64 * STRIDE;
        while at < to {
            let item = order.item(i);
            let range = self.item_range(item);
            let length = range.end - range.start;
            if at + length > from {
                let skipped = from.saturating_sub(at);
                let kept = length.min(to - at);
                visit(item, range.start + skipped..range.start + kept);
            }
            at += length;
            i += 1;
        }
    }
}
