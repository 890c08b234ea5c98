//! The split of samples into training and validation.
//!
//! By content, a sample belongs to the validation set if the hash of its text is below the fraction: duplicates fall
//! into the same split, and rows added later move no existing row. By position, the validation set is the last part of
//! each source. Neither depends on a seed, so two runs are evaluated on the same rows.

use std::ops::Range;

use recipe::SplitBy;

use crate::dataset::DatasetSource;
use crate::error::{Error, Result};

/// Size and choice of the validation set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Holdout {
    /// Fraction of the data, from 0 to 0.5.
    pub fraction: f64,
    /// Whether a sample's content or its position decides.
    pub by: SplitBy,
}

/// Samples of one source in one split, in file order.
#[derive(Clone, Debug)]
pub(crate) enum SampleSet {
    Range(Range<u64>),
    List(Vec<u32>),
}

impl SampleSet {
    pub(crate) fn n_samples(&self) -> u64 {
        match self {
            Self::Range(range) => range.end - range.start,
            Self::List(list) => list.len() as u64,
        }
    }

    /// Index within the source of sample `i` of this set.
    pub(crate) fn sample(&self, i: u64) -> u64 {
        match self {
            Self::Range(range) => range.start + i,
            Self::List(list) => list.get(i as usize).map_or(0, |sample| u64::from(*sample)),
        }
    }

    pub(crate) fn samples(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.n_samples()).map(|i| self.sample(i))
    }
}

/// Training and validation samples of one source.
#[derive(Clone, Debug)]
pub(crate) struct Split {
    pub(crate) train: SampleSet,
    pub(crate) eval: SampleSet,
}

/// Splits each source; a sample is never divided.
pub(super) fn sample_split(
    sources: &[DatasetSource],
    holdout: Option<Holdout>,
) -> Result<Vec<Split>> {
    match holdout.filter(|holdout| holdout.fraction > 0.0) {
        None => Ok(sources.iter().map(without_validation).collect()),
        Some(Holdout { fraction, by: SplitBy::Content }) => split_by_content(sources, fraction),
        Some(Holdout { fraction, by: SplitBy::Position }) => split_by_position(sources, fraction),
    }
}

/// As [`sample_split`], but if all prompts are the same, training and validation both use it.
///
/// Validation measures the answers to a prompt, so a shared prompt is no leak.
pub(super) fn prompt_split(
    sources: &[DatasetSource],
    holdout: Option<Holdout>,
) -> Result<Vec<Split>> {
    let groups = |source: &DatasetSource| {
        let store = source.store.clone();
        (0..store.n_samples()).map(move |sample| store.group(sample))
    };
    let mut all = sources.iter().flat_map(groups);
    let first = all.next();
    if holdout.is_some() && all.all(|group| Some(group) == first) {
        let all_samples = |source: &DatasetSource| SampleSet::Range(0..source.store.n_samples());
        return Ok(sources
            .iter()
            .map(|source| Split { train: all_samples(source), eval: all_samples(source) })
            .collect());
    }
    sample_split(sources, holdout)
}

fn without_validation(source: &DatasetSource) -> Split {
    let n = source.store.n_samples();
    Split { train: SampleSet::Range(0..n), eval: SampleSet::Range(n..n) }
}

/// Splits by the hash of each sample's content.
fn split_by_content(sources: &[DatasetSource], fraction: f64) -> Result<Vec<Split>> {
    // 2^64 × fraction; the cast saturates.
    let threshold = (fraction * 18_446_744_073_709_551_616.0) as u64;
    let groups = || {
        let stores = sources.iter().map(|source| &source.store);
        stores.flat_map(|store| (0..store.n_samples()).map(|sample| store.group(sample)))
    };
    let n_rows = groups().count() as u64;
    let smallest = groups().min().unwrap_or(0);
    // A small set may have no hash below the fraction: then its smallest hash is the validation set.
    let threshold = threshold.max(smallest.saturating_add(1));
    let samples = |in_eval: bool, source: &DatasetSource| {
        SampleSet::List(
            (0..source.store.n_samples())
                .filter(|sample| (source.store.group(*sample) < threshold) == in_eval)
                .map(|sample| sample as u32)
                .collect(),
        )
    };
    let splits: Vec<Split> = sources
        .iter()
        .map(|source| Split { train: samples(false, source), eval: samples(true, source) })
        .collect();
    check(&splits, fraction, n_rows)?;
    Ok(splits)
}

/// Takes the last samples of each source as validation set; samples of one row stay together.
fn split_by_position(sources: &[DatasetSource], fraction: f64) -> Result<Vec<Split>> {
    let splits: Vec<Split> = sources
        .iter()
        .map(|source| {
            let store = &source.store;
            let n = store.n_samples();
            let mut border = n_train(n, fraction);
            while border > 0 && border < n && store.location(border) == store.location(border - 1) {
                border -= 1;
            }
            Split { train: SampleSet::Range(0..border), eval: SampleSet::Range(border..n) }
        })
        .collect();
    let n_rows = sources.iter().map(|source| source.store.n_samples()).sum();
    check(&splits, fraction, n_rows)?;
    Ok(splits)
}

/// Number of training items among `n`: `int(n * (1 - fraction))`.
pub(crate) fn n_train(n: u64, fraction: f64) -> u64 {
    // The small addend keeps 100 × (1 - 0.07) = 92.999… at 93.
    (n as f64 * (1.0 - fraction) + 1e-6).floor() as u64
}

fn check(splits: &[Split], fraction: f64, n_rows: u64) -> Result<()> {
    let is_empty = |samples: fn(&Split) -> &SampleSet| {
        splits.iter().all(|split| samples(split).n_samples() == 0)
    };
    if is_empty(|split| &split.train) {
        return Err(Error::EmptySplit { fraction, split: "training", n_rows });
    }
    if is_empty(|split| &split.eval) {
        return Err(Error::EmptySplit { fraction, split: "validation", n_rows });
    }
    Ok(())
}
