//! Labelled answers in rows, one per row: the targets are the answer and its end token. Nothing is packed, because the
//! probability of an answer belongs to one text.

use recipe::Overlong;

use crate::batch::RowWriter;
use crate::dataset::counts::LabelCounts;
use crate::dataset::issues::IssueKind;
use crate::dataset::mixture::{Item, Mixture, Order};
use crate::dataset::train_eval_split::SampleSet;
use crate::dataset::{DatasetSource, SplitRows};
use crate::rows::Label;

/// Labelled answers of every source in one split.
#[derive(Debug)]
pub(crate) struct CompletionRows {
    sources: Vec<Completions>,
    mixture: Mixture,
    sequence_length: usize,
}

/// Labelled answers of one source that have targets within a row.
#[derive(Clone, Debug)]
pub(crate) struct Completions {
    source: DatasetSource,
    usable: SampleSet,
}

impl Completions {
    /// Selects the answers that have targets within a row, and reports those that are truncated or dropped.
    pub(crate) fn select(
        source: DatasetSource,
        samples: &SampleSet,
        sequence_length: usize,
        overlong: Overlong,
        mut report: impl FnMut(u64, IssueKind),
    ) -> Self {
        let mut usable = Vec::new();
        for sample in samples.samples() {
            let targets = source.store.target_span(sample);
            let fits = source.store.len(sample) <= sequence_length as u64;
            let issue = match (fits, overlong) {
                (false, Overlong::Drop) => Some(IssueKind::TooLong),
                _ if targets.n == 0 || targets.first as usize >= sequence_length => {
                    Some(IssueKind::NoTargets)
                }
                (false, Overlong::Cut) => Some(IssueKind::Truncated),
                (true, _) => None,
            };
            if let Some(kind) = issue {
                report(source.first_sample + sample, kind);
            }
            if matches!(issue, None | Some(IssueKind::Truncated)) {
                usable.push(sample as u32);
            }
        }
        Self { source, usable: SampleSet::List(usable) }
    }
}

impl CompletionRows {
    pub(crate) fn new(sources: Vec<Completions>, order: Order, sequence_length: usize) -> Self {
        let count = |source: &Completions| (source.usable.n_samples(), source.source.weight);
        let counts: Vec<(u64, f64)> = sources.iter().map(count).collect();
        Self { mixture: Mixture::new(&counts, order), sources, sequence_length }
    }

    /// Rows of the first epoch by their label.
    pub(crate) fn label_counts(&self) -> LabelCounts {
        let mut counts = LabelCounts::default();
        for item in self.mixture.epoch(0).items() {
            match self.label(item) {
                Label::Chosen => counts.desirable += 1,
                Label::Rejected => counts.undesirable += 1,
            }
        }
        counts
    }

    fn label(&self, item: Item) -> Label {
        let completions = &self.sources[item.source];
        completions.source.store.label(completions.usable.sample(item.index))
    }
}

impl SplitRows for CompletionRows {
    fn n_rows(&self, epoch: u64) -> u64 {
        self.mixture.epoch(epoch).n_items()
    }

    fn is_constant(&self) -> bool {
        self.mixture.is_constant()
    }

    fn fill(&self, epoch: u64, row: u64, out: &mut RowWriter<'_>) {
        let item = self.mixture.epoch(epoch).item(row);
        let completions = &self.sources[item.source];
        let (store, sample) = (&completions.source.store, completions.usable.sample(item.index));
        out.push_label(self.label(item) == Label::Chosen);
        out.start_sample(completions.source.first_sample + sample);
        let start = store.start(sample);
        let end = start + store.len(sample).min(self.sequence_length as u64);
        for at in start..end {
            let is_target = at + 1 < end && store.loss_mask(at + 1);
            out.push(store.token(at), is_target.then(|| store.token(at + 1)), store.role(at));
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
        self.sources.iter().map(|completions| completions.usable.n_samples()).sum()
    }
}
