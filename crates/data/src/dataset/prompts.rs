//! Prompts in rows, one per row, for stages that sample their own answers.
//!
//! A row has no target tokens; in counts, a prompt is one target. Prompts are never truncated, because a prompt without
//! its end is a different prompt.

use crate::batch::RowWriter;
use crate::dataset::issues::IssueKind;
use crate::dataset::mixture::{Mixture, Order};
use crate::dataset::train_eval_split::SampleSet;
use crate::dataset::{DatasetSource, SplitRows};

/// Prompts of every source in one split.
#[derive(Debug)]
pub(crate) struct PromptRows {
    sources: Vec<Prompts>,
    mixture: Mixture,
}

/// Prompts of one source that fit into a row.
#[derive(Clone, Debug)]
pub(crate) struct Prompts {
    source: DatasetSource,
    fitting: SampleSet,
}

impl Prompts {
    /// Selects the prompts that fit into a row, and reports the others.
    pub(crate) fn select(
        source: DatasetSource,
        samples: &SampleSet,
        sequence_length: usize,
        mut report: impl FnMut(u64, IssueKind),
    ) -> Self {
        let mut fitting = Vec::new();
        for sample in samples.samples() {
            if source.store.len(sample) <= sequence_length as u64 {
                fitting.push(sample as u32);
            } else {
                report(source.first_sample + sample, IssueKind::TooLong);
            }
        }
        Self { source, fitting: SampleSet::List(fitting) }
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

impl SplitRows for PromptRows {
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
            out.push(store.token(at), None, store.role(at));
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
