//! Chats in rows: several in one row by first fit, or one per row. A chat never spans two rows.
//!
//! First fit takes the epoch's shuffled chats in order and puts each into the oldest open row that has room. At most 64
//! rows are open, so a chat stays close to its position in the order. A chat occupies the positions up to its last target;
//! the tokens after it carry no loss. It is truncated only at `sequence_length`, and dropped if no target is left.

use std::sync::{Arc, Mutex, PoisonError};

use recipe::Overlong;

use crate::batch::RowWriter;
use crate::cache::TokenStore;
use crate::dataset::issues::IssueKind;
use crate::dataset::mixture::{Item, Mixture, Order};
use crate::dataset::train_eval_split::SampleSet;
use crate::dataset::{DatasetSource, SplitRows};

/// Maximum number of open rows.
const LOOK_BACK: usize = 64;
/// Epochs whose packing is cached; a batch may span two.
const EPOCHS_KEPT: usize = 3;

/// Chats of every source in one split.
#[derive(Debug)]
pub(crate) struct ChatRows {
    sources: Vec<Chats>,
    mixture: Mixture,
    sequence_length: usize,
    packing: bool,
    epochs: Mutex<Vec<Arc<Packed>>>,
}

/// Chats of one source that have targets.
#[derive(Clone, Debug)]
pub(crate) struct Chats {
    source: DatasetSource,
    usable: SampleSet,
}

/// Packing of one epoch: the items of each row, as indices into the epoch's order.
#[derive(Debug)]
struct Packed {
    epoch: u64,
    /// Start of each row in `items`, then the length of `items`.
    starts: Vec<u32>,
    items: Vec<u32>,
}

impl Chats {
    /// Selects the chats that have targets within a row, and reports those that are truncated or dropped.
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
            let fits = targets.last as usize <= sequence_length;
            let issue = if targets.n == 0 {
                Some(IssueKind::NoTargets)
            } else if fits {
                None
            } else if overlong == Overlong::Drop {
                Some(IssueKind::TooLong)
            } else if targets.first as usize > sequence_length {
                Some(IssueKind::NoTargets)
            } else {
                Some(IssueKind::Truncated)
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

    fn sample(&self, item: Item) -> (&TokenStore, u64) {
        let chats = &self.sources[item.source];
        (&chats.source.store, chats.usable.sample(item.index))
    }

    /// Number of positions of a chat, up to the one that predicts its last target.
    fn n_positions(&self, item: Item) -> usize {
        let (store, sample) = self.sample(item);
        (store.target_span(sample).last as usize).min(self.sequence_length)
    }

    fn item_targets(&self, item: Item) -> u64 {
        let (store, sample) = self.sample(item);
        let targets = store.target_span(sample);
        if targets.last as usize <= self.sequence_length {
            return u64::from(targets.n);
        }
        let first = store.start(sample);
        let kept = first + 1..=first + self.sequence_length as u64;
        kept.filter(|at| store.loss_mask(*at)).count() as u64
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

    /// Items of a row, in the order in which they were packed.
    fn items(&self, epoch: u64, row: u64) -> Vec<Item> {
        let packed = self.packed(epoch);
        // The last rows of a packing are the emptiest, so rows are shuffled over the epoch.
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
            let target = store.loss_mask(at + 1).then(|| store.token(at + 1));
            row.push(store.token(at), target, store.role(at));
        }
    }
}

impl Packed {
    fn n_rows(&self) -> u64 {
        self.starts.len() as u64 - 1
    }
}

/// Groups items by row, keeping their order.
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

impl SplitRows for ChatRows {
    fn n_rows(&self, epoch: u64) -> u64 {
        self.packed(epoch).n_rows()
    }

    /// With packing, the number of rows depends on the order.
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
