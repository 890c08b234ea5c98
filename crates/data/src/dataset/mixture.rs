//! The items of an epoch and their order, with random access and without a stored list. An item is a document, a chat, a
//! pair, a prompt or a row of a stream.
//!
//! A weight is the number of times each item of a source is seen per epoch. Its integer part repeats the source. Its
//! fraction takes a slice of a permutation that advances from epoch to epoch, so that over the epochs every item is seen
//! equally often (with a weight of 0.5, once in two epochs).

use seed::{Purpose, derive, shuffled_index};

/// Sources of one split with their weights.
#[derive(Clone, Debug)]
pub(crate) struct Mixture {
    sources: Vec<Weighted>,
    order: Order,
}

#[derive(Clone, Debug)]
struct Weighted {
    n_items: u64,
    whole: u64,
    fraction: f64,
}

/// Order of the items of an epoch.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Shuffled differently in each epoch.
    Shuffled {
        /// Seed of the run.
        seed: u64,
        /// Name of the stage; stages on the same data shuffle differently.
        stage: String,
    },
    /// In file order, each item once.
    Fixed,
}

/// One item of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) source: usize,
    pub(crate) index: u64,
    /// Number of the pass over its source within this epoch.
    pub(crate) pass: u64,
}

impl Mixture {
    /// `sources`: number of items and weight of each.
    pub(crate) fn new(sources: &[(u64, f64)], order: Order) -> Self {
        let fixed = matches!(order, Order::Fixed);
        let sources = sources.iter().map(|&(n_items, weight)| {
            let weight = if fixed { 1.0 } else { weight };
            Weighted { n_items, whole: weight.floor() as u64, fraction: weight.fract() }
        });
        Self { sources: sources.collect(), order }
    }

    /// Whether every epoch has the same items.
    pub(crate) fn is_constant(&self) -> bool {
        self.sources.iter().all(|source| source.fraction == 0.0 || source.n_items == 0)
    }

    /// Number of complete passes over a source per epoch.
    pub(crate) fn whole_passes(&self, source: usize) -> u64 {
        self.sources.get(source).map_or(0, |source| source.whole)
    }

    /// Order of one epoch.
    pub(crate) fn epoch(&self, epoch: u64) -> Epoch<'_> {
        let mut ends = Vec::with_capacity(self.sources.len());
        let mut n_items = 0;
        for source in &self.sources {
            n_items += source.n_shown(epoch);
            ends.push(n_items);
        }
        let mut order = Epoch { mixture: self, epoch, ends, item_key: None, row_key: None };
        order.item_key = order.key(0);
        order.row_key = order.key(1);
        order
    }
}

/// Order of one epoch: a pure function of its number, with the values that every item needs.
#[derive(Debug)]
pub(crate) struct Epoch<'a> {
    mixture: &'a Mixture,
    epoch: u64,
    /// Number of items up to and including each source, before shuffling.
    ends: Vec<u64>,
    item_key: Option<u64>,
    row_key: Option<u64>,
}

impl Epoch<'_> {
    /// Number of items in the epoch.
    pub(crate) fn n_items(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Item `i`.
    pub(crate) fn item(&self, i: u64) -> Item {
        let at = permuted(self.item_key, self.n_items(), i);
        let source = self.ends.partition_point(|end| *end <= at);
        let before = source.checked_sub(1).and_then(|s| self.ends.get(s)).copied().unwrap_or(0);
        self.shown_item(source, at - before)
    }

    /// All items in order.
    pub(crate) fn items(&self) -> impl Iterator<Item = Item> + '_ {
        (0..self.n_items()).map(|i| self.item(i))
    }

    fn shown_item(&self, source: usize, i: u64) -> Item {
        let Some(weighted) = self.mixture.sources.get(source) else {
            debug_assert!(false, "item {i} of source {source} is out of range");
            return Item { source: 0, index: 0, pass: 0 };
        };
        let n = weighted.n_items;
        if i < weighted.whole * n {
            return Item { source, index: i % n, pass: i / n };
        }
        let drawn = weighted.slice_start(self.epoch) + (i - weighted.whole * n);
        let key = match &self.mixture.order {
            Order::Shuffled { seed, stage } => {
                Some(derive(*seed, stage, Purpose::Mix, drawn / n, source as u64))
            }
            Order::Fixed => None,
        };
        Item { source, index: permuted(key, n, drawn % n), pass: weighted.whole }
    }

    /// Key of a permutation of this epoch: 0 for the order of items, 1 for the order of rows, the rest for callers.
    /// `None` if the order is fixed.
    pub(crate) fn key(&self, use_number: u64) -> Option<u64> {
        match &self.mixture.order {
            Order::Shuffled { seed, stage } => {
                Some(derive(*seed, stage, Purpose::Shuffle, self.epoch, use_number))
            }
            Order::Fixed => None,
        }
    }

    /// Index of the packed row at position `i` of `n`.
    pub(crate) fn row(&self, n: u64, i: u64) -> u64 {
        permuted(self.row_key, n, i)
    }
}

/// Element `i` of a permutation of `0..n`; the identity without a key.
fn permuted(key: Option<u64>, n: u64, i: u64) -> u64 {
    key.map_or(i, |key| shuffled_index(key, n, i))
}

impl Weighted {
    fn n_shown(&self, epoch: u64) -> u64 {
        self.whole * self.n_items + self.slice_start(epoch + 1) - self.slice_start(epoch)
    }

    /// Number of items that the fraction has used before an epoch.
    fn slice_start(&self, epoch: u64) -> u64 {
        (epoch as f64 * self.fraction * self.n_items as f64).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn seen(mixture: &Mixture, epochs: u64) -> BTreeMap<(usize, u64), u64> {
        let mut counts = BTreeMap::new();
        for epoch in 0..epochs {
            for item in mixture.epoch(epoch).items() {
                *counts.entry((item.source, item.index)).or_insert(0) += 1;
            }
        }
        counts
    }

    #[test]
    fn a_weight_is_the_number_of_times_each_item_is_seen() {
        let order = Order::Shuffled { seed: 7, stage: "pretrain".into() };
        let mixture = Mixture::new(&[(10, 1.0), (7, 2.5), (9, 0.25), (0, 1.5)], order);
        let counts = seen(&mixture, 8);
        for index in 0..10 {
            assert_eq!(counts[&(0, index)], 8);
        }
        for index in 0..7 {
            assert_eq!(counts[&(1, index)], 20);
        }
        for index in 0..9 {
            assert_eq!(counts[&(2, index)], 2);
        }
        assert_eq!(counts.len(), 26);
    }

    #[test]
    fn a_fixed_order_is_the_order_of_the_files() {
        let mixture = Mixture::new(&[(2, 3.0), (3, 0.5)], Order::Fixed);
        let items: Vec<_> = mixture.epoch(0).items().map(|i| (i.source, i.index)).collect();
        assert_eq!(items, [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]);
        assert!(mixture.is_constant());
    }
}
