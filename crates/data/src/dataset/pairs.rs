//! Pairs in rows: each pair is two rows, the chosen text and the rejected one, each whole and alone.
//!
//! A row has no targets of single tokens: what is learnt is one score for each text. For counting, a pair is one target.
//! It deliberately packs nothing: a score belongs to one text.

use recipe::Overlong;

use crate::cache::{Store, TokenRole};
use crate::dataset::chats::CutReason;
use crate::dataset::mixture::{Item, Mixture, Order};
use crate::dataset::row::RowWriter;
use crate::dataset::split::Part;
use crate::dataset::{Layout, SourcePart};

/// Pairs of every source on one side of the split.
#[derive(Debug)]
pub(crate) struct PairRows {
    sources: Vec<Pairs>,
    mixture: Mixture,
    sequence_length: usize,
}

/// One source's pairs that can be told apart.
#[derive(Clone, Debug)]
pub(crate) struct Pairs {
    source: SourcePart,
    /// The chosen text of each pair; the rejected one is the sample behind it.
    chosen: Vec<u32>,
}

impl Pairs {
    /// Picks the pairs of a part whose texts differ within a row, and says what became of the rest.
    pub(crate) fn pick(
        source: SourcePart,
        part: &Part,
        sequence_length: usize,
        overlong: Overlong,
        mut report: impl FnMut(u64, CutReason),
    ) -> Self {
        let mut chosen = Vec::new();
        // Both texts of a pair stand on the same side of a split: they share their group and place.
        for sample in part.samples().filter(|sample| sample % 2 == 0) {
            let store = &source.store;
            let n_tokens = store.len(sample).max(store.len(sample + 1));
            let fits = n_tokens <= sequence_length as u64;
            let alike = texts_are_alike(store, sample, sequence_length);
            let reason = match (fits, overlong) {
                (false, Overlong::Drop) => Some(CutReason::Overlong),
                _ if alike => Some(CutReason::Alike),
                (false, Overlong::Cut) => Some(CutReason::Cut),
                (true, _) => None,
            };
            if let Some(reason) = reason {
                report(source.first_sample + sample, reason);
            }
            if matches!(reason, None | Some(CutReason::Cut)) {
                chosen.push(sample as u32);
            }
        }
        Self { source, chosen }
    }
}

/// Whether both texts of a pair have the same tokens within a row.
fn texts_are_alike(store: &Store, chosen: u64, sequence_length: usize) -> bool {
    let tokens = |sample: u64| {
        let kept = store.len(sample).min(sequence_length as u64);
        (store.start(sample)..store.start(sample) + kept).map(|at| store.token(at))
    };
    tokens(chosen).eq(tokens(chosen + 1))
}

impl PairRows {
    pub(crate) fn new(sources: Vec<Pairs>, order: Order, sequence_length: usize) -> Self {
        let counts: Vec<(u64, f64)> =
            sources.iter().map(|pairs| (pairs.chosen.len() as u64, pairs.source.weight)).collect();
        let mixture = Mixture::new(&counts, order);
        Self { sources, mixture, sequence_length }
    }

    fn write(&self, item: Item, out: &mut RowWriter<'_>) {
        let pairs = &self.sources[item.source];
        let (store, chosen) = (&pairs.source.store, u64::from(pairs.chosen[item.index as usize]));
        for sample in [chosen, chosen + 1] {
            out.start_sample(pairs.source.first_sample + sample);
            let kept = store.len(sample).min(self.sequence_length as u64);
            for at in store.start(sample)..store.start(sample) + kept {
                out.push(store.token(at), None, TokenRole::from_mark(store.mark(at)));
            }
            out.end_row();
        }
    }
}

impl Layout for PairRows {
    fn n_rows(&self, epoch: u64) -> u64 {
        self.mixture.epoch(epoch).n_items()
    }

    fn batch_rows(&self) -> u64 {
        2
    }

    fn is_constant(&self) -> bool {
        self.mixture.is_constant()
    }

    fn fill(&self, epoch: u64, row: u64, out: &mut RowWriter<'_>) {
        self.write(self.mixture.epoch(epoch).item(row), out);
    }

    fn n_targets(&self, _epoch: u64, _row: u64) -> u64 {
        1
    }

    fn epoch_targets(&self, epoch: u64) -> u64 {
        self.n_rows(epoch)
    }

    fn n_samples(&self) -> u64 {
        self.sources.iter().map(|pairs| pairs.chosen.len() as u64).sum()
    }
}
