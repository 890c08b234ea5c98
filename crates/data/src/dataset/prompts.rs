//! Prompts in rows, each whole and alone: what a stage that samples its own answers begins with.
//!
//! A row has no targets, for nothing of a prompt is learnt; for counting, a prompt is one. It deliberately cuts nothing: a
//! prompt without its end asks something else.

use crate::cache::TokenRole;
use crate::dataset::chats::CutReason;
use crate::dataset::mixture::{Mixture, Order};
use crate::dataset::row::RowWriter;
use crate::dataset::split::Part;
use crate::dataset::{Layout, SourcePart};

/// Prompts of every source on one side of the split.
#[derive(Debug)]
pub(crate) struct PromptRows {
    sources: Vec<Prompts>,
    mixture: Mixture,
}

/// One source's prompts that fit into a row.
#[derive(Clone, Debug)]
pub(crate) struct Prompts {
    source: SourcePart,
    fitting: Part,
}

impl Prompts {
    /// Picks the prompts of a part that fit into a row, and reports the others.
    pub(crate) fn pick(
        source: SourcePart,
        part: &Part,
        sequence_length: usize,
        mut report: impl FnMut(u64, CutReason),
    ) -> Self {
        let mut fitting = Vec::new();
        for sample in part.samples() {
            if source.store.len(sample) <= sequence_length as u64 {
                fitting.push(sample as u32);
            } else {
                report(source.first_sample + sample, CutReason::Overlong);
            }
        }
        Self { source, fitting: Part::List(fitting) }
    }
}

impl PromptRows {
    pub(crate) fn new(sources: Vec<Prompts>, order: Order) -> Self {
        let counts: Vec<(u64, f64)> = sources
            .iter()
            .map(|prompts| (prompts.fitting.n_samples(), prompts.source.weight))
            .collect();
        Self { mixture: Mixture::new(&counts, order), sources }
    }
}

impl Layout for PromptRows {
    fn n_rows(&self, epoch: u64) -> u64 {
        self.mixture.epoch(epoch).n_items()
    }

    fn is_constant(&self) -> bool {
        self.mixture.is_constant()
    }

    fn fill(&self, epoch: u64, row: u64, out: &mut RowWriter<'_>) {
        let item = self.mixture.epoch(epoch).item(row);
        let prompts = &self.sources[item.source];
        let (store, sample) = (&prompts.source.store, prompts.fitting.sample(item.index));
        out.start_sample(prompts.source.first_sample + sample);
        for at in store.start(sample)..store.start(sample + 1) {
            out.push(store.token(at), None, TokenRole::from_mark(store.mark(at)));
        }
        out.end_row();
    }

    fn n_targets(&self, _epoch: u64, _row: u64) -> u64 {
        1
    }

    fn epoch_targets(&self, epoch: u64) -> u64 {
        self.n_rows(epoch)
    }

    fn n_samples(&self) -> u64 {
        self.sources.iter().map(|prompts| prompts.fitting.n_samples()).sum()
    }
}
