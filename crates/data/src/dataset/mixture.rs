//! Which items of which source an epoch shows, and in which order: random access, nothing stored.
//!
//! A weight is how many times each item of a source is seen in an epoch. Its whole part repeats the
//! source; its fraction takes a slice of a permutation that moves on from epoch to epoch, so that
//! over the epochs every item is seen equally often (a weight of 0.5 over two epochs: once).
//! It deliberately knows nothing of lengths: an item is a document, a chat or a row of a stream.

use seed::{Purpose, derive, shuffled_index};

/// The sources of one part (training or validation) with their weights.
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

/// In which order the items of an epoch come.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Shuffled anew in each epoch.
    Shuffled {
        /// The run's seed.
        seed: u64,
        /// The stage's name: two stages on the same data go different ways.
        stage: String,
    },
    /// As in the files, each item once.
    Fixed,
}

/// One shown item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) source: usize,
    pub(crate) index: u64,
    /// Which of the repetitions of its source in this epoch this is.
    pub(crate) copy: u64,
}

impl Mixture {
    /// Sources as (number of items, weight).
    pub(crate) fn new(sources: &[(u64, f64)], order: Order) -> Self {
        let fixed = matches!(order, Order::Fixed);
        let sources = sources.iter().map(|&(n_items, weight)| {
            let weight = if fixed { 1.0 } else { weight };
            Weighted { n_items, whole: weight.floor() as u64, fraction: weight.fract() }
        });
        Self { sources: sources.collect(), order }
    }

    /// Whether every epoch shows the same items.
    pub(crate) fn is_constant(&self) -> bool {
        self.sources.iter().all(|source| source.fraction == 0.0 || source.n_items == 0)
    }

    /// How many whole passes over a source an epoch makes.
    pub(crate) fn whole_passes(&self, source: usize) -> u64 {
        self.sources.get(source).map_or(0, |source| source.whole)
    }

    /// One epoch's order.
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

/// The order of one epoch: a pure function of its number, worked out as far as every item needs it.
#[derive(Debug)]
pub(crate) struct Epoch<'a> {
    mixture: &'a Mixture,
    epoch: u64,
    /// Items shown up to and with each source, before shuffling.
    ends: Vec<u64>,
    item_key: Option<u64>,
    row_key: Option<u64>,
}

impl Epoch<'_> {
    /// Items shown.
    pub(crate) fn n_items(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Item number `i`.
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
            debug_assert!(false, "item {i} of source {source} is not shown");
            return Item { source: 0, index: 0, copy: 0 };
        };
        let n = weighted.n_items;
        if i < weighted.whole * n {
            return Item { source, index: i % n, copy: i / n };
        }
        let drawn = weighted.slice_start(self.epoch) + (i - weighted.whole * n);
        let key = match &self.mixture.order {
            Order::Shuffled { seed, stage } => {
                Some(derive(*seed, stage, Purpose::Mix, drawn / n, source as u64))
            }
            Order::Fixed => None,
        };
        Item { source, index: permuted(key, n, drawn % n), copy: weighted.whole }
    }

    /// A key of this epoch; 0 is the order of items, 1 that of rows, the rest are the caller's.
    /// None in a fixed order.
    pub(crate) fn key(&self, use_number: u64) -> Option<u64> {
        match &self.mixture.order {
            Order::Shuffled { seed, stage } => {
                Some(derive(*seed, stage, Purpose::Shuffle, self.epoch, use_number))
            }
            Order::Fixed => None,
        }
    }

    /// Which of `n` packed rows comes as number `i`.
    pub(crate) fn row(&self, n: u64, i: u64) -> u64 {
        permuted(self.row_key, n, i)
    }
}

/// Number `i` of a permutation of `0..n`; the identity without a key.
fn permuted(key: Option<u64>, n: u64, i: u64) -> u64 {
    key.map_or(i, |key| shuffled_index(key, n, i))
}

impl Weighted {
    fn n_shown(&self, epoch: u64) -> u64 {
        self.whole * self.n_items + self.slice_start(epoch + 1) - self.slice_start(epoch)
    }

    /// Items that the fraction has shown before an epoch.
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
    fn weights_say_how_often_each_item_is_seen() {
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
    fn a_fixed_order_is_that_of_the_files() {
        let mixture = Mixture::new(&[(2, 3.0), (3, 0.5)], Order::Fixed);
        let items: Vec<_> = mixture.epoch(0).items().map(|i| (i.source, i.index)).collect();
        assert_eq!(items, [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]);
        assert!(mixture.is_constant());
    }
}
