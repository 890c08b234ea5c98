//! Chats in rows: never cut across rows, several in one row by first fit, or one a row.
//!
//! First fit looks over the epoch's shuffled chats in order and puts each into the oldest of the
//! open rows that has room; at most 64 rows are open, so a chat stands near its place in the order.
//! A chat takes the positions up to its last target: what follows teaches nothing. It deliberately
//! cuts a chat only at `sequence_length`, and drops it if no target is left.

use std::sync::{Arc, Mutex, PoisonError};

use recipe::Overlong;

use crate::cache::{Store, TARGET_BIT, TokenRole};
use crate::dataset::mixture::{Item, Mixture, Order};
use crate::dataset::row::RowWriter;
use crate::dataset::split::Part;
use crate::dataset::{Layout, SourcePart};

/// Rows that are open at a time.
const LOOK_BACK: usize = 64;
/// Epochs whose packing is kept: a batch may span two.
const EPOCHS_KEPT: usize = 3;

/// Chats of every source on one side of the split.
#[derive(Debug)]
pub(crate) struct ChatRows {
    sources: Vec<Chats>,
    mixture: Mixture,
    sequence_length: usize,
    packing: bool,
    epochs: Mutex<Vec<Arc<Packed>>>,
}

/// One source's chats that have targets.
#[derive(Clone, Debug)]
pub(crate) struct Chats {
    source: SourcePart,
    usable: Part,
}

/// What became of a chat that does not fit as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutReason {
    /// Its end was cut off, with some of its targets.
    Cut,
    /// It is longer than a row and the recipe drops such chats.
    Overlong,
    /// It has no target, or none before the cut.
    NoTargets,
    /// Both texts of a pair are the same, or are after the cut.
    Alike,
    /// The answers of a pair follow different prompts, so that their probabilities do not compare.
    OtherPrompt,
}

/// Which item of the epoch's order stands in which row.
#[derive(Debug)]
struct Packed {
    epoch: u64,
    /// Where each row's items begin in `items`, and behind the last row their number.
    starts: Vec<u32>,
    items: Vec<u32>,
}

impl Chats {
    /// Picks the chats of a part that have targets within a row, and says what became of the rest.
    pub(crate) fn pick(
        source: SourcePart,
        part: &Part,
        sequence_length: usize,
        overlong: Overlong,
        mut report: impl FnMut(u64, CutReason),
    ) -> Self {
        let mut usable = Vec::new();
        for sample in part.samples() {
            let targets = source.store.targets(sample);
            let fits = targets.last as usize <= sequence_length;
            let reason = if targets.n == 0 {
                Some(CutReason::NoTargets)
            } else if fits {
                None
            } else if overlong == Overlong::Drop {
                Some(CutReason::Overlong)
            } else if targets.first as usize > sequence_length {
                Some(CutReason::NoTargets)
            } else {
                Some(CutReason::Cut)
            };
            if let Some(reason) = reason {
                report(source.first_sample + sample, reason);
            }
            if matches!(reason, None | Some(CutReason::Cut)) {
                usable.push(sample as u32);
            }
        }
        Self { source, usable: Part::List(usable) }
    }
}

impl ChatRows {
    pub(crate) fn new(
        sources: Vec<Chats>,
        order: Order,
        sequence_length: usize,
        packing: bool,
    ) -> Self {
        let counts: Vec<(u64, f64)> =
            sources.iter().map(|chats| (chats.usable.n_samples(), chats.source.weight)).collect();
        let mixture = Mixture::new(&counts, order);
        Self { sources, mixture, sequence_length, packing, epochs: Mutex::new(Vec::new()) }
    }

    fn sample(&self, item: Item) -> (&Store, u64) {
        let chats = &self.sources[item.source];
        (&chats.source.store, chats.usable.sample(item.index))
    }

    /// Positions that a chat takes: up to the one that predicts its last target.
    fn n_positions(&self, item: Item) -> usize {
        let (store, sample) = self.sample(item);
        (store.targets(sample).last as usize).min(self.sequence_length)
    }

    fn item_targets(&self, item: Item) -> u64 {
        let (store, sample) = self.sample(item);
        let targets = store.targets(sample);
        if targets.last as usize <= self.sequence_length {
            return u64::from(targets.n);
        }
        let first = store.start(sample);
        let kept = first + 1..=first + self.sequence_length as u64;
        kept.filter(|at| store.mark(*at) & TARGET_BIT != 0).count() as u64
    }

    fn packed(&self, epoch: u64) -> Arc<Packed> {
        let mut kept = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(packed) = kept.iter().find(|packed| packed.epoch == epoch) {
            return Arc::clone(packed);
        }
        let packed = Arc::new(self.pack(epoch));
        if kept.len() >= EPOCHS_KEPT {
            kept.remove(0);
        }
        kept.push(Arc::clone(&packed));
        packed
    }

    fn pack(&self, epoch: u64) -> Packed {
        let order = self.mixture.epoch(epoch);
        // Open rows as (row, room), oldest first.
        let mut open: Vec<(u32, usize)> = Vec::with_capacity(LOOK_BACK + 1);
        let (mut rows, mut n_rows) = (Vec::with_capacity(order.n_items() as usize), 0_u32);
        for item in order.items() {
            let length = self.n_positions(item);
            let found = open.iter_mut().find(|(_, room)| self.packing && *room >= length);
            if let Some((row, room)) = found {
                *room -= length;
                rows.push(*row);
                continue;
            }
            rows.push(n_rows);
            open.push((n_rows, self.sequence_length - length));
            if open.len() > LOOK_BACK {
                open.remove(0);
            }
            n_rows += 1;
        }
        by_row(epoch, &rows, n_rows)
    }

    /// The items of a row, in the order in which they were packed.
    fn items(&self, epoch: u64, row: u64) -> Vec<Item> {
        let packed = self.packed(epoch);
        // The last rows of a packing are the emptiest: spread them over the epoch.
        let order = self.mixture.epoch(epoch);
        let row = order.row(packed.n_rows(), row) as usize;
        let range = packed.starts[row] as usize..packed.starts[row + 1] as usize;
        let items = packed.items[range].iter();
        items.map(|item| order.item(u64::from(*item))).collect()
    }

    fn write(&self, item: Item, row: &mut RowWriter<'_>) {
        let (store, sample) = self.sample(item);
        row.start_sample(self.sources[item.source].source.first_sample + sample);
        let first = store.start(sample);
        for at in first..first + self.n_positions(item) as u64 {
            let is_target = store.mark(at + 1) & TARGET_BIT != 0;
            let target = is_target.then(|| store.token(at + 1));
            row.push(store.token(at), target, TokenRole::from_mark(store.mark(at)));
        }
    }
}

impl Packed {
    fn n_rows(&self) -> u64 {
        self.starts.len() as u64 - 1
    }
}

/// Sorts items by their rows, keeping their order.
fn by_row(epoch: u64, rows: &[u32], n_rows: u32) -> Packed {
    let mut starts = vec![0_u32; n_rows as usize + 1];
    for row in rows {
        starts[*row as usize + 1] += 1;
    }
    for row in 0..n_rows as usize {
        starts[row + 1] += starts[row];
    }
    let mut next = starts.clone();
    let mut items = vec![0; rows.len()];
    for (item, row) in rows.iter().enumerate() {
        items[next[*row as usize] as usize] = item as u32;
        next[*row as usize] += 1;
    }
    Packed { epoch, starts, items }
}

impl Layout for ChatRows {
    fn n_rows(&self, epoch: u64) -> u64 {
        self.packed(epoch).n_rows()
    }

    /// Another order packs into another number of rows.
    fn is_constant(&self) -> bool {
        !self.packing && self.mixture.is_constant()
    }

    fn fill(&self, epoch: u64, row: u64, out: &mut RowWriter<'_>) {
        for item in self.items(epoch, row) {
            self.write(item, out);
        }
        out.end_row();
    }

    fn n_targets(&self, epoch: u64, row: u64) -> u64 {
        self.items(epoch, row).into_iter().map(|item| self.item_targets(item)).sum()
    }

    fn epoch_targets(&self, epoch: u64) -> u64 {
        self.mixture.epoch(epoch).items().map(|item| self.item_targets(item)).sum()
    }

    fn n_samples(&self) -> u64 {
        self.sources.iter().map(|chats| chats.usable.n_samples()).sum()
    }
}
