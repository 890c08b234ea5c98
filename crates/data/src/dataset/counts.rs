//! What a plan prints about data: how much there is, and what became of what does not fit.
//!
//! It deliberately counts after cutting and packing, never by estimate.

use serde::Serialize;

use crate::cache::{PoolCounts, Prepared};
use crate::dataset::pairs::Pairs;
use crate::dataset::{CutReason, Dataset};
use crate::place::Place;

/// Numbers of one dataset.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Rows read from all sources, bad ones included.
    pub rows: u64,
    /// Documents, chats, texts of pairs or prompts made of them.
    pub samples: u64,
    /// Tokens of all samples, before cutting.
    pub tokens: u64,
    /// UTF-8 bytes of all texts.
    pub bytes: u64,
    /// Rows left out because they are bad.
    pub bad: u64,
    /// Messages of the first bad rows.
    pub bad_rows: Vec<String>,
    /// Rows that `where` left out.
    pub left_out: u64,
    /// Documents, or texts for pairs, left out because they have no text.
    pub empty: u64,
    /// Samples whose content occurred before.
    pub duplicates: u64,
    /// Chats whose end was cut off with some of its targets, or pairs with such a text.
    pub cut: u64,
    /// Tokens that were cut off from them.
    pub cut_tokens: u64,
    /// Chats or pairs dropped because they are longer than a row.
    pub dropped: u64,
    /// Chats dropped because no target is left, or pairs in which an answer has none.
    pub without_targets: u64,
    /// Pairs dropped because both texts are the same.
    pub alike: u64,
    /// Pairs dropped because their answers follow different prompts.
    pub other_prompts: u64,
    /// Samples that are trained on.
    pub train_samples: u64,
    /// Samples that are held out.
    pub eval_samples: u64,
    /// Rows of the first epoch.
    pub epoch_rows: u64,
    /// Targets of the first epoch.
    pub epoch_targets: u64,
    /// Rows of the validation part.
    pub eval_rows: u64,
    /// Targets of the validation part.
    pub eval_targets: u64,
    /// What pairs were drawn from, a source at a time.
    pub drawn: Vec<DrawnCounts>,
}

/// A source whose pairs are drawn from rows of one text each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DrawnCounts {
    /// The source's path as the recipe writes it.
    pub path: String,
    /// Rows that fit `chosen` alone.
    pub chosen: u64,
    /// Rows that fit `rejected` alone.
    pub rejected: u64,
    /// Rows that fit both and are in no pair.
    pub both: u64,
    /// Rows that fit neither.
    pub neither: u64,
    /// Pairs drawn for training.
    pub train_pairs: u64,
    /// Pairs drawn from texts that are held out.
    pub eval_pairs: u64,
}

/// A sample that was cut or dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct CutSample {
    /// Its number, as in `Batch::samples`.
    pub sample: u64,
    /// Where it came from.
    pub place: Option<Place>,
    /// Its tokens before cutting.
    pub n_tokens: u64,
    /// What became of it.
    pub reason: CutReason,
}

impl Counts {
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
            counts.left_out += summary.n_left_out;
            counts.bad_rows.extend(summary.bad.iter().cloned());
        }
        for (sample, reason) in &dataset.cuts {
            match reason {
                CutReason::Cut => {
                    counts.cut += 1;
                    // A row holds the tokens that it reads and one more as the last target.
                    let kept = dataset.options.sequence_length as u64 + 1;
                    counts.cut_tokens += dataset.sample_tokens(*sample).saturating_sub(kept);
                }
                CutReason::Overlong => counts.dropped += 1,
                CutReason::NoTargets => counts.without_targets += 1,
                CutReason::Alike => counts.alike += 1,
                CutReason::OtherPrompt => counts.other_prompts += 1,
            }
        }
        counts
    }

    /// The share of samples that have no target, of all that were read: above 1 % a run should stop.
    pub fn share_without_targets(&self) -> f64 {
        if self.samples == 0 { 0.0 } else { self.without_targets as f64 / self.samples as f64 }
    }
}

impl Dataset {
    /// The samples that were cut or dropped, for `--list-cut`.
    pub fn cut_samples(&self) -> impl Iterator<Item = CutSample> + '_ {
        self.cuts.iter().map(|&(sample, reason)| CutSample {
            sample,
            place: self.place(sample),
            n_tokens: self.sample_tokens(sample),
            reason,
        })
    }

    fn sample_tokens(&self, sample: u64) -> u64 {
        let after = self.sources.partition_point(|source| source.first_sample <= sample);
        let source = after.checked_sub(1).and_then(|at| self.sources.get(at));
        source.map_or(0, |source| source.store.len(sample - source.first_sample))
    }
}

/// What the sources have that pairs are drawn from.
pub(super) fn drawn(prepared: &Prepared, train: &[Pairs], eval: &[Pairs]) -> Vec<DrawnCounts> {
    let sides = train.iter().zip(eval);
    let sources = prepared.sources.iter().zip(sides).filter_map(|(source, (train, eval))| {
        let PoolCounts { chosen, rejected, neither, both } = source.store.summary.pools?;
        Some(DrawnCounts {
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
