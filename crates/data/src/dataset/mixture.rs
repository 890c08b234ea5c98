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

    /// Items shown in an epoch.
    pub(crate) fn n_items(&self, epoch: u64) -> u64 {
        self.sources.iter().map(|source| source.n_shown(epoch)).sum()
    }

    /// How many whole passes over a source an epoch makes.
    pub(crate) fn whole_passes(&self, source: usize) -> u64 {
        self.sources.get(source).map_or(0, |source| source.whole)
    }

    /// Item number `i` of an epoch's order.
    pub(crate) fn item(&self, epoch: u64, i: u64) -> Item {
        let n_items = self.n_items(epoch);
        let mut left = match &self.order {
            Order::Shuffled { .. } => shuffled_index(self.key(epoch, 0), n_items, i),
            Order::Fixed => i,
        };
        for (source, weighted) in self.sources.iter().enumerate() {
            let shown = weighted.n_shown(epoch);
            if left < shown {
                return self.shown_item(epoch, source, left);
            }
            left -= shown;
        }
        debug_assert!(false, "item {i} lies outside of epoch {epoch}");
        Item { source: 0, index: 0, copy: 0 }
    }

    fn shown_item(&self, epoch: u64, source: usize, i: u64) -> Item {
        let weighted = &self.sources[source];
        let n = weighted.n_items;
        if i < weighted.whole * n {
            return Item { source, index: i % n, copy: i / n };
        }
        let drawn = weighted.slice_start(epoch) + (i - weighted.whole * n);
        let index = match &self.order {
            Order::Shuffled { seed, stage } => {
                let key = derive(*seed, stage, Purpose::Mix, drawn / n, source as u64);
                shuffled_index(key, n, drawn % n)
            }
            Order::Fixed => drawn % n,
        };
        Item { source, index, copy: weighted.whole }
    }

    /// The key of one of an epoch's permutations; 0 is the order of items, the rest are the caller's.
    pub(crate) fn key(&self, epoch: u64, use_number: u64) -> u64 {
        match &self.order {
            Order::Shuffled { seed, stage } => {
                derive(*seed, stage, Purpose::Shuffle, epoch, use_number)
            }
            Order::Fixed => 0,
        }
    }

    /// Number `i` of a permutation of `0..n` that belongs to an epoch; the identity in a fixed order.
    pub(crate) fn permuted(&self, epoch: u64, use_number: u64, n: u64, i: u64) -> u64 {
        match &self.order {
            Order::Shuffled { .. } => shuffled_index(self.key(epoch, use_number), n, i),
            Order::Fixed => i,
        }
    }
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
            for i in 0..mixture.n_items(epoch) {
                let item = mixture.item(epoch, i);
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
        let items: Vec<_> =
            (0..5).map(|i| mixture.item(0, i)).map(|i| (i.source, i.index)).collect();
        assert_eq!(items, [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]);
        assert!(mixture.is_constant());
    }
}
