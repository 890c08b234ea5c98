//! Batches of a run by step: a pure function of the prepared data, the options and the step.
//!
//! There is no iterator state: `batch(step)` always returns the same batch, so a resumed run needs nothing but its step.

mod chats;
mod completions;
mod counts;
mod documents;
mod inspect;
mod issues;
mod mixture;
mod pairs;
mod prompts;
mod stage_datasets;
mod stream;
mod train_eval_split;

use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use crate::batch::{Batch, RowWriter};
use crate::cache::{Prepared, TokenStore};
use crate::error::{Error, Result};
use crate::location::Location;

pub use counts::{DatasetCounts, DrawnPairCounts, LabelCounts};
pub use inspect::{InspectedRow, Segment};
pub use issues::{IssueKind, SampleIssue};
pub use train_eval_split::Holdout;

/// Options of the run that a dataset depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOptions {
    /// Seed of the recipe.
    pub seed: u64,
    /// Name of the stage; stages on the same data shuffle differently.
    pub stage: String,
    /// Positions per row.
    pub sequence_length: usize,
    /// Rows per optimizer step.
    pub rows_per_step: usize,
    /// Number of optimizer steps after which the run ends.
    pub max_steps: Option<u64>,
    /// Number of passes over the data after which the run ends.
    pub epochs: Option<f64>,
    /// Number of positions after which the run ends.
    pub max_tokens: Option<u64>,
    /// Validation set. `None`: everything is for training.
    pub holdout: Option<Holdout>,
}

/// Rows of one split, by kind: documents, a stream, chats, pairs, labelled answers or prompts.
pub(crate) trait SplitRows: Debug + Send + Sync {
    /// Number of rows in an epoch.
    fn n_rows(&self, epoch: u64) -> u64;
    /// Rows of a batch that one row of this kind takes: two for a pair.
    fn batch_rows(&self) -> u64 {
        1
    }
    /// Whether every epoch has the same number of rows.
    fn is_constant(&self) -> bool;
    /// Writes one row.
    fn fill(&self, epoch: u64, row: u64, out: &mut RowWriter<'_>);
    /// Number of targets in one row.
    fn n_targets(&self, epoch: u64, row: u64) -> u64;
    /// Number of targets in all rows of an epoch.
    fn epoch_targets(&self, epoch: u64) -> u64;
    /// Number of samples of this split that occur in rows.
    fn n_samples(&self) -> u64;
}

/// One source of a dataset.
#[derive(Clone, Debug)]
pub(crate) struct DatasetSource {
    store: TokenStore,
    weight: f64,
    /// Number of its first sample among the samples of all sources.
    first_sample: u64,
}

/// Epochs that are packed to count their rows; the rows of later ones are estimated.
const PACKED_EPOCHS: u64 = 1000;
/// First epoch whose rows no step reads.
const SPARE_EPOCHS: u64 = 1 << 40;

/// The batches of one stage's run.
#[derive(Debug)]
pub struct Dataset {
    sources: Vec<DatasetSource>,
    train: Box<dyn SplitRows>,
    eval: Option<Box<dyn SplitRows>>,
    options: RunOptions,
    pad: u32,
    /// Number of rows before each epoch, for the epochs counted so far.
    epoch_starts: Mutex<Vec<u64>>,
    /// Number of rows in the run.
    n_run_rows: u64,
    /// Samples that were truncated or dropped.
    issues: Vec<(u64, IssueKind)>,
    counts: DatasetCounts,
}

impl Dataset {
    fn new(
        prepared: &Prepared,
        sources: Vec<DatasetSource>,
        options: &RunOptions,
        (train, eval): (Box<dyn SplitRows>, Option<Box<dyn SplitRows>>),
        issues: Vec<(u64, IssueKind)>,
    ) -> Result<Self> {
        let sequence_length = options.sequence_length;
        if sequence_length == 0 || options.rows_per_step == 0 {
            return Err(Error::NoSteps { problem: "a step has no positions" });
        }
        let epoch_rows = train.n_rows(0);
        if epoch_rows == 0 || train.epoch_targets(0) == 0 {
            let lengths = sources.iter().flat_map(|source| {
                (0..source.store.n_samples()).map(|sample| source.store.len(sample))
            });
            let fits = lengths.max().unwrap_or(0) <= sequence_length as u64;
            let paths: Vec<&str> = prepared.sources.iter().map(|source| &*source.path).collect();
            let source_paths = paths.join(", ");
            return Err(Error::NoTargets { source_paths, sequence_length, fits });
        }
        let eval = eval.filter(|eval| eval.n_rows(0) > 0);
        if let Some(Holdout { fraction, .. }) = options.holdout
            && fraction > 0.0
            && eval.is_none()
        {
            let n_rows = sources.iter().map(|source| source.store.n_samples()).sum();
            return Err(Error::EmptySplit { fraction, split: "validation", n_rows });
        }
        let mut dataset = Self {
            sources,
            train,
            eval,
            options: options.clone(),
            pad: prepared.ids.pad,
            epoch_starts: Mutex::new(vec![0]),
            n_run_rows: 0,
            issues,
            counts: DatasetCounts::default(),
        };
        dataset.n_run_rows = dataset.count_run_rows()?;
        dataset.counts = DatasetCounts::of(&dataset, prepared);
        Ok(dataset)
    }

    fn count_run_rows(&self) -> Result<u64> {
        let options = &self.options;
        let by_steps = options.max_steps.map(|n| n.saturating_mul(options.rows_per_step as u64));
        let row_tokens = options.sequence_length as u64 * self.batch_rows();
        let by_tokens = options.max_tokens.map(|n| n.div_ceil(row_tokens));
        let shortest = by_steps.into_iter().chain(by_tokens).min();
        let by_epochs = options.epochs.map(|epochs| self.rows_of_epochs(epochs, shortest));
        let n_rows = shortest.into_iter().chain(by_epochs).min();
        match n_rows {
            None => Err(Error::NoSteps { problem: "nothing limits its length" }),
            Some(0) => Err(Error::NoSteps { problem: "its limits leave no row" }),
            Some(n_rows) => Ok(n_rows),
        }
    }

    /// Number of rows in so many epochs. Counting stops at `enough` rows: later epochs are not packed.
    fn rows_of_epochs(&self, epochs: f64, enough: Option<u64>) -> u64 {
        let whole = epochs.max(0.0).floor() as u64;
        let part = epochs - epochs.floor();
        let rows_of_part = |epoch| (part * self.train.n_rows(epoch) as f64).ceil() as u64;
        if self.train.is_constant() {
            return whole.saturating_mul(self.train.n_rows(0)).saturating_add(rows_of_part(0));
        }
        if whole > PACKED_EPOCHS {
            // As many rows in each later epoch as in the mean of these.
            let rows = self.epoch_start(PACKED_EPOCHS);
            let rows = (rows as f64 / PACKED_EPOCHS as f64 * epochs).ceil() as u64;
            return rows.min(enough.unwrap_or(u64::MAX));
        }
        for epoch in 0..whole {
            let start = self.epoch_start(epoch);
            if enough.is_some_and(|enough| start >= enough) {
                return start;
            }
        }
        self.epoch_start(whole) + rows_of_part(whole)
    }

    /// Number of rows before an epoch.
    fn epoch_start(&self, epoch: u64) -> u64 {
        if self.train.is_constant() {
            return epoch * self.train.n_rows(0);
        }
        let mut starts = self.epoch_starts.lock().unwrap_or_else(PoisonError::into_inner);
        while starts.len() as u64 <= epoch {
            let last = starts.len() as u64 - 1;
            let next = starts.last().copied().unwrap_or(0) + self.train.n_rows(last);
            starts.push(next);
        }
        starts.get(epoch as usize).copied().unwrap_or(0)
    }

    /// Epoch of a row of the run, and its number within the epoch.
    fn locate(&self, row: u64) -> (u64, u64) {
        if self.train.is_constant() {
            let n_rows = self.train.n_rows(0);
            return (row / n_rows, row % n_rows);
        }
        let mut epoch = {
            let starts = self.epoch_starts.lock().unwrap_or_else(PoisonError::into_inner);
            starts.partition_point(|start| *start <= row).saturating_sub(1) as u64
        };
        while self.epoch_start(epoch + 1) <= row {
            epoch += 1;
        }
        (epoch, row - self.epoch_start(epoch))
    }

    /// Number of optimizer steps in the run. The last one may have fewer rows.
    pub fn n_steps(&self) -> u64 {
        self.n_run_rows.div_ceil(self.options.rows_per_step as u64)
    }

    /// Number of rows in the run.
    pub fn n_run_rows(&self) -> u64 {
        self.n_run_rows
    }

    /// Rows of a batch per row of the run: two if a row is a pair, otherwise one.
    pub fn batch_rows(&self) -> u64 {
        self.train.batch_rows()
    }

    /// Number of rows in an epoch.
    pub fn n_rows(&self, epoch: u64) -> u64 {
        self.train.n_rows(epoch)
    }

    /// Sources whose weight leaves them without a row in the run, by their place in the recipe, with their weights.
    pub fn sources_without_rows(&self) -> Vec<(usize, f64)> {
        let epochs = self.epoch_of(self.n_steps()).ceil();
        let is_unread = |source: &DatasetSource| {
            // Items are at most as many as samples; each epoch shows this part of them.
            let shown = epochs * source.weight * source.store.n_samples() as f64;
            source.store.n_samples() > 0 && shown < 0.5
        };
        let sources = self.sources.iter().enumerate();
        sources
            .filter(|(_, source)| is_unread(source))
            .map(|(idx, source)| (idx, source.weight))
            .collect()
    }

    /// Epochs completed before a step, for display; an estimate where they are very many and most are not packed yet.
    pub fn epoch_of(&self, step: u64) -> f64 {
        let row = step.saturating_mul(self.options.rows_per_step as u64).min(self.n_run_rows);
        if self.is_far(row) {
            return row as f64 / self.train.n_rows(0) as f64;
        }
        let (epoch, within) = self.locate(row);
        epoch as f64 + within as f64 / self.train.n_rows(epoch) as f64
    }

    /// Whether locating a row would pack very many epochs, because the number of rows differs from epoch to epoch.
    fn is_far(&self, row: u64) -> bool {
        if self.train.is_constant() {
            return false;
        }
        let packed = {
            let starts = self.epoch_starts.lock().unwrap_or_else(PoisonError::into_inner);
            starts.last().copied().unwrap_or(0)
        };
        row.saturating_sub(packed) / self.train.n_rows(0).max(1) > PACKED_EPOCHS
    }

    /// Rows of one step; empty after the last step.
    pub fn batch(&self, step: u64) -> Batch {
        let rows_per_step = self.options.rows_per_step as u64;
        let first = step.saturating_mul(rows_per_step).min(self.n_run_rows);
        let last = first.saturating_add(rows_per_step).min(self.n_run_rows);
        let n_rows = ((last - first) * self.batch_rows()) as usize;
        let mut batch = Batch::with_capacity(n_rows, self.options.sequence_length);
        let mut writer = RowWriter::new(&mut batch, None, self.pad);
        for row in first..last {
            let (epoch, row) = self.locate(row);
            self.train.fill(epoch, row, &mut writer);
        }
        batch
    }

    /// `n_rows` rows that no step reads, from row `first` on: a sequence of their own in a random order, of which all splits and
    /// weights are those of the run. For stages that need more rows than their steps have.
    pub fn spare_batch(&self, first: u64, n_rows: usize) -> Batch {
        let mut batch = Batch::with_capacity(
            n_rows.saturating_mul(self.batch_rows() as usize),
            self.options.sequence_length,
        );
        let mut writer = RowWriter::new(&mut batch, None, self.pad);
        let per_epoch = self.train.n_rows(0).max(1);
        for row in (first..).take(n_rows) {
            let epoch = SPARE_EPOCHS.saturating_add(row / per_epoch);
            let row = (row % per_epoch) % self.train.n_rows(epoch).max(1);
            self.train.fill(epoch, row, &mut writer);
        }
        batch
    }

    /// Length of the longest row among the first `n_rows` of the run, in tokens; `None` if the run has no rows.
    pub fn longest_row(&self, n_rows: u64) -> Option<usize> {
        let longest = |row| {
            let (epoch, row) = self.locate(row);
            let mut batch =
                Batch::with_capacity(self.batch_rows() as usize, self.options.sequence_length);
            self.train.fill(epoch, row, &mut RowWriter::new(&mut batch, None, self.pad));
            batch.lengths().into_iter().max()
        };
        (0..n_rows.min(self.n_run_rows)).filter_map(longest).max()
    }

    /// Number of rows in the validation set; 0 without one.
    pub fn n_eval_rows(&self) -> u64 {
        self.eval.as_ref().map_or(0, |eval| eval.n_rows(0))
    }

    /// Batches of the validation set in a fixed order; at most `max_rows` rows, evenly spaced.
    pub fn eval_batches(
        &self,
        rows_per_batch: usize,
        max_rows: Option<u64>,
    ) -> impl Iterator<Item = Batch> + '_ {
        let n_rows = self.n_eval_rows();
        let n_taken = max_rows.unwrap_or(n_rows).min(n_rows);
        let rows_per_batch = rows_per_batch.max(1) as u64;
        (0..n_taken.div_ceil(rows_per_batch)).map(move |index| {
            let first = index * rows_per_batch;
            let last = (first + rows_per_batch).min(n_taken);
            let mut batch =
                Batch::with_capacity((last - first) as usize, self.options.sequence_length);
            let mut writer = RowWriter::new(&mut batch, None, self.pad);
            for row in first..last {
                // Row i of m is row i * n / m of all n.
                let row = (u128::from(row) * u128::from(n_rows) / u128::from(n_taken)) as u64;
                if let Some(eval) = &self.eval {
                    eval.fill(0, row, &mut writer);
                }
            }
            batch
        })
    }

    /// Sizes of this dataset.
    pub fn counts(&self) -> &DatasetCounts {
        &self.counts
    }

    /// Number of targets in the whole run. Reads every row of a last, partial epoch. An estimate where epochs of different
    /// lengths are very many.
    pub fn run_targets(&self) -> u64 {
        if self.is_far(self.n_run_rows) {
            return (self.epoch_of(u64::MAX) * self.train.epoch_targets(0) as f64) as u64;
        }
        let (epochs, rows) = self.locate(self.n_run_rows);
        let whole: u64 = if self.train.is_constant() {
            epochs.saturating_mul(self.train.epoch_targets(0))
        } else {
            (0..epochs).map(|epoch| self.train.epoch_targets(epoch)).sum()
        };
        whole + (0..rows).map(|row| self.train.n_targets(epochs, row)).sum::<u64>()
    }

    /// Location of the row from which a sample of a batch was built.
    pub fn location(&self, sample: u64) -> Option<Location> {
        let (source, within) = self.source_of(sample)?;
        Some(source.store.location(within))
    }

    /// Texts that are stored next to a sample of a batch ([`crate::SourceSpec::answers`]); `None` for those that its row
    /// lacks.
    pub fn answers(&self, sample: u64) -> Vec<Option<String>> {
        let source = self.source_of(sample);
        source.map(|(source, within)| source.store.answers(within)).unwrap_or_default()
    }

    /// Number of samples of all sources; samples are numbered from 0.
    pub fn n_source_samples(&self) -> u64 {
        self.sources.iter().map(|source| source.store.n_samples()).sum()
    }

    /// Source of a sample, and its number there.
    fn source_of(&self, sample: u64) -> Option<(&DatasetSource, u64)> {
        let after = self.sources.partition_point(|source| source.first_sample <= sample);
        let source = self.sources.get(after.checked_sub(1)?)?;
        let within = sample - source.first_sample;
        (within < source.store.n_samples()).then_some((source, within))
    }

    /// The options that this dataset was built with.
    pub fn options(&self) -> &RunOptions {
        &self.options
    }
}
