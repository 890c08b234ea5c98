//! Which samples are held out for validation.
//!
//! By content, a sample is held out where the hash of its text lies below the fraction: duplicates go
//! the same way, and rows that are added later leave the others where they are. By position, the
//! last part of each source is. It deliberately depends on no seed: two runs measure on the same rows.

use std::ops::Range;

use recipe::SplitBy;

use crate::cache::Store;
use crate::error::{Error, Result};

/// What is held out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Holdout {
    /// The share of the data, from 0 to 0.5.
    pub fraction: f64,
    /// What decides which part that is.
    pub by: SplitBy,
}

/// Samples of one source on one side of the split, in file order.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Range(Range<u64>),
    List(Vec<u32>),
}

impl Part {
    pub(crate) fn n_samples(&self) -> u64 {
        match self {
            Self::Range(range) => range.end - range.start,
            Self::List(list) => list.len() as u64,
        }
    }

    /// The source's sample that is number `i` of this part.
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

/// Both sides of one source.
#[derive(Clone, Debug)]
pub(crate) struct Sides {
    pub(crate) train: Part,
    pub(crate) eval: Part,
}

/// Everything is for training.
pub(crate) fn no_split(stores: &[&Store]) -> Vec<Sides> {
    let sides = stores.iter().map(|store| {
        let n = store.n_samples();
        Sides { train: Part::Range(0..n), eval: Part::Range(n..n) }
    });
    sides.collect()
}

/// Splits by the hash of each sample's content.
pub(crate) fn by_content(stores: &[&Store], fraction: f64) -> Result<Vec<Sides>> {
    // 2^64 × fraction; the cast saturates.
    let threshold = (fraction * 18_446_744_073_709_551_616.0) as u64;
    let groups = || stores.iter().flat_map(|store| (0..store.n_samples()).map(|s| store.group(s)));
    let n_rows = groups().count() as u64;
    let smallest = groups().min().unwrap_or(0);
    // A small set may have no hash below the fraction: then the smallest is held out.
    let threshold = threshold.max(smallest.saturating_add(1));
    let side = |held_out: bool, store: &Store| {
        let samples = 0..store.n_samples();
        Part::List(
            samples
                .filter(|sample| (store.group(*sample) < threshold) == held_out)
                .map(|sample| sample as u32)
                .collect(),
        )
    };
    let sides: Vec<Sides> = stores
        .iter()
        .map(|store| Sides { train: side(false, store), eval: side(true, store) })
        .collect();
    check(&sides, fraction, n_rows)?;
    Ok(sides)
}

/// Splits off the last samples of each source; samples of one row stay together.
pub(crate) fn by_position(stores: &[&Store], fraction: f64) -> Result<Vec<Sides>> {
    let sides: Vec<Sides> = stores
        .iter()
        .map(|store| {
            let n = store.n_samples();
            let mut border = n_train(n, fraction);
            while border > 0 && border < n && store.place(border) == store.place(border - 1) {
                border -= 1;
            }
            Sides { train: Part::Range(0..border), eval: Part::Range(border..n) }
        })
        .collect();
    let n_rows = stores.iter().map(|store| store.n_samples()).sum();
    check(&sides, fraction, n_rows)?;
    Ok(sides)
}

/// How many of `n` come before the held-out fraction, as `int(n * 0.9)` would say.
pub(crate) fn n_train(n: u64, fraction: f64) -> u64 {
    // The small addend keeps 100 × (1 - 0.07) = 92.999… at 93.
    (n as f64 * (1.0 - fraction) + 1e-6).floor() as u64
}

fn check(sides: &[Sides], fraction: f64, n_rows: u64) -> Result<()> {
    let empty = |part: fn(&Sides) -> &Part| sides.iter().all(|side| part(side).n_samples() == 0);
    if empty(|side| &side.train) {
        return Err(Error::EmptySide { fraction, side: "training", n_rows });
    }
    if empty(|side| &side.eval) {
        return Err(Error::EmptySide { fraction, side: "validation", n_rows });
    }
    Ok(())
}
