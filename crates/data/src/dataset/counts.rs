//! Sizes of a dataset, counted after truncation and packing.

use serde::Serialize;

use crate::cache::{PoolCounts, Prepared};
use crate::dataset::Dataset;
use crate::dataset::issues::IssueKind;
use crate::dataset::pairs::Pairs;

/// Sizes of one dataset.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DatasetCounts {
    /// Rows read from all sources, bad ones included.
    pub rows: u64,
    /// Documents, chats, texts of pairs, labelled answers or prompts built from them.
    pub samples: u64,
    /// Tokens of all samples, before truncation.
    pub tokens: u64,
    /// UTF-8 bytes of all texts.
    pub bytes: u64,
    /// Bad rows that were skipped.
    pub bad: u64,
    /// Messages of the first bad rows.
    pub bad_rows: Vec<String>,
    /// Rows that `where` removed.
    pub filtered: u64,
    /// Number of `NaN` and `Infinity` in JSON files, read as missing values.
    pub not_finite: u64,
    /// Rows whose label says that the completion is not desirable, which are not read.
    pub undesirable: u64,
    /// Choices made among the files of directories, each after the source's path.
    pub file_choices: Vec<String>,
    /// Documents, or texts for pairs, dropped because they have no text.
    pub empty: u64,
    /// Samples whose content occurred before.
    pub duplicates: u64,
    /// Chats that lost some of their targets to truncation, and pairs with a truncated text.
    pub truncated: u64,
    /// Tokens that truncation removed.
    pub truncated_tokens: u64,
    /// Chats, pairs or prompts dropped because they are longer than a row.
    pub too_long: u64,
    /// Chats dropped because no target is left, and pairs with an answer that has none.
    pub without_targets: u64,
    /// Pairs dropped because both texts have the same tokens.
    pub identical_texts: u64,
    /// Pairs dropped because their answers follow different prompts.
    pub different_prompts: u64,
    /// Samples of the training set.
    pub train_samples: u64,
    /// Samples of the validation set.
    pub eval_samples: u64,
    /// Rows of the first epoch.
    pub epoch_rows: u64,
    /// Targets of the first epoch.
    pub epoch_targets: u64,
    /// Rows of the validation set.
    pub eval_rows: u64,
    /// Targets of the validation set.
    pub eval_targets: u64,
    /// Training rows by their label, in stages on labelled answers.
    pub labels: Option<LabelCounts>,
    /// Pools and drawn pairs of each source whose pairs are drawn.
    pub drawn: Vec<DrawnPairCounts>,
}

/// Training rows of an epoch by their label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LabelCounts {
    /// Rows whose answer is desirable.
    pub desirable: u64,
    /// Rows whose answer is undesirable.
    pub undesirable: u64,
}

/// Pools and pairs of a source whose pairs are drawn from rows with one text each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DrawnPairCounts {
    /// The source's path as written in the recipe.
    pub path: String,
    /// Rows that match `chosen` alone.
    pub chosen: u64,
    /// Rows that match `rejected` alone.
    pub rejected: u64,
    /// Rows that match both and are in no pair.
    pub both: u64,
    /// Rows that match neither.
    pub neither: u64,
    /// Training pairs.
    pub train_pairs: u64,
    /// Validation pairs.
    pub eval_pairs: u64,
}

impl DatasetCounts {
    pub(crate) fn of(dataset: &Dataset, prepared: &Prepared) -> Self {
        let mut counts = Self {
            train_samples: dataset.train.n_samples(),
            eval_samples: dataset.eval.as_ref().map_or(0, |eval| eval.n_samples()),
            epoch_rows: dataset.train.n_rows(0),
            epoch_targets: dataset.train.epoch_targets(0),
            eval_rows: dataset.n_eval_rows(),
            eval_targets: dataset.eval.as_ref().map_or(0, |eval| eval.epoch_targets(0)),
            duplicates: duplicates(prepared),
            ..Self::default()
        };
        for source in &prepared.sources {
            let summary = &source.store.summary;
            counts.rows += summary.n_rows;
            counts.samples += summary.n_samples;
            counts.tokens += summary.n_tokens;
            counts.bytes += summary.n_bytes;
            counts.bad += summary.n_bad;
            counts.empty += summary.n_empty;
            counts.filtered += summary.n_filtered;
            counts.not_finite += summary.n_not_finite;
            counts.undesirable += summary.n_undesirable;
            let choice = source.choice.iter();
            counts.file_choices.extend(choice.map(|choice| format!("{}: {choice}", source.path)));
            counts.bad_rows.extend(summary.bad.iter().cloned());
        }
        for (sample, kind) in &dataset.issues {
            match kind {
                IssueKind::Truncated => {
                    counts.truncated += 1;
                    // A row contains the tokens that it reads and one more as its last target.
                    let kept = dataset.options.sequence_length as u64 + 1;
                    counts.truncated_tokens += dataset.sample_tokens(*sample).saturating_sub(kept);
                }
                IssueKind::TooLong => counts.too_long += 1,
                IssueKind::NoTargets => counts.without_targets += 1,
                IssueKind::IdenticalTexts => counts.identical_texts += 1,
                IssueKind::DifferentPrompts => counts.different_prompts += 1,
            }
        }
        counts
    }

    /// Fraction of the samples that have no target. Above 1 % a run should stop.
    pub fn share_without_targets(&self) -> f64 {
        if self.samples == 0 { 0.0 } else { self.without_targets as f64 / self.samples as f64 }
    }
}

/// Counts of the sources whose pairs are drawn.
pub(super) fn drawn(prepared: &Prepared, train: &[Pairs], eval: &[Pairs]) -> Vec<DrawnPairCounts> {
    let pairs = train.iter().zip(eval);
    let sources = prepared.sources.iter().zip(pairs).filter_map(|(source, (train, eval))| {
        let PoolCounts { chosen, rejected, neither, both } = source.store.summary.pools?;
        Some(DrawnPairCounts {
            path: source.path.clone(),
            chosen,
            rejected,
            both,
            neither,
            train_pairs: train.n_pairs(),
            eval_pairs: eval.n_pairs(),
        })
    });
    sources.collect()
}

fn duplicates(prepared: &Prepared) -> u64 {
    let stores = prepared.sources.iter().map(|source| &source.store);
    let mut hashes: Vec<u64> =
        stores.flat_map(|store| (0..store.n_samples()).map(|s| store.hash(s))).collect();
    let n_samples = hashes.len();
    hashes.sort_unstable();
    hashes.dedup();
    (n_samples - hashes.len()) as u64
}
