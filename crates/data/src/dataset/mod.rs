//! Batches of a run by step: a pure function of the prepared data, the options and the step.
//!
//! It deliberately has no iterator state: `batch(step)` is the same whenever and wherever it is
//! called, so a resumed run needs nothing but its step.

mod chats;
mod counts;
mod documents;
mod mixture;
mod pairs;
mod prompts;
mod row;
mod sides;
mod split;
mod stream;
mod view;

use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use recipe::{Overlong, Packing};
use seed::{Purpose, derive};

use crate::batch::Batch;
use crate::cache::{Prepared, Store};
use crate::error::{Error, Result};
use crate::place::Place;

pub use chats::CutReason;
pub use counts::{Counts, CutSample, DrawnCounts};
pub use split::Holdout;
pub use view::{RowView, Segment};

use chats::{ChatRows, Chats};
use mixture::Order;
use pairs::{Asked, PairRows, Pairs};
use prompts::{PromptRows, Prompts};
pub(crate) use row::RowWriter;
use sides::{document_sides, prompt_sides, sample_sides, shuffled, source_parts, stream_sides};
use split::{Part, Sides};

/// What a dataset needs to know of the run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOptions {
    /// The recipe's seed.
    pub seed: u64,
    /// The stage's name, so that stages on the same data go different ways.
    pub stage: String,
    /// Positions of a row.
    pub sequence_length: usize,
    /// Rows of an optimizer step.
    pub rows_per_step: usize,
    /// End after so many steps.
    pub max_steps: Option<u64>,
    /// End after so many passes over the data.
    pub epochs: Option<f64>,
    /// End after so many positions.
    pub max_tokens: Option<u64>,
    /// What is held out.
    pub holdout: Option<Holdout>,
}

/// How rows are laid out: documents, a stream, chats, pairs of rows, or prompts.
pub(crate) trait Layout: Debug + Send + Sync {
    /// Rows of an epoch.
    fn n_rows(&self, epoch: u64) -> u64;
    /// Rows of a batch that one of these makes: a pair makes two.
    fn batch_rows(&self) -> u64 {
        1
    }
    /// Whether every epoch has the same number of rows.
    fn is_constant(&self) -> bool;
    /// Writes one row.
    fn fill(&self, epoch: u64, row: u64, out: &mut RowWriter<'_>);
    /// Targets of one row.
    fn n_targets(&self, epoch: u64, row: u64) -> u64;
    /// Targets of all rows of an epoch.
    fn epoch_targets(&self, epoch: u64) -> u64;
    /// Samples on this side of the split that have a place in rows.
    fn n_samples(&self) -> u64;
}

/// One source as the layouts see it.
#[derive(Clone, Debug)]
pub(crate) struct SourcePart {
    store: Store,
    weight: f64,
    /// The number of its first sample among those of all sources.
    first_sample: u64,
}

/// The batches of one stage's run.
#[derive(Debug)]
pub struct Dataset {
    sources: Vec<SourcePart>,
    train: Box<dyn Layout>,
    eval: Option<Box<dyn Layout>>,
    options: RunOptions,
    pad: u32,
    /// Rows before each epoch, as far as they have been counted.
    epoch_starts: Mutex<Vec<u64>>,
    /// Rows of the whole run.
    n_run_rows: u64,
    cuts: Vec<(u64, CutReason)>,
    counts: Counts,
}

impl Dataset {
    /// Documents for pretraining.
    pub fn pretrain(prepared: &Prepared, options: &RunOptions, packing: Packing) -> Result<Self> {
        let sources = source_parts(prepared);
        let (train, eval) = match packing {
            Packing::Documents => {
                document_sides(&sources, options, &prepared.ids, shuffled(options))?
            }
            Packing::Stream => stream_sides(&sources, options, &prepared.ids, shuffled(options))?,
        };
        Self::new(prepared, sources, options, (train, eval), Vec::new())
    }

    /// Chats for fine-tuning. With `packing`, several share a row.
    pub fn sft(
        prepared: &Prepared,
        options: &RunOptions,
        packing: bool,
        overlong: Overlong,
    ) -> Result<Self> {
        let sources = source_parts(prepared);
        let sides = sample_sides(&sources, options.holdout)?;
        let length = options.sequence_length;
        let mut cuts = Vec::new();
        let mut rows = |part: fn(&Sides) -> &Part, order: Order| {
            let chats = sources.iter().zip(&sides).map(|(source, side)| {
                let report = |sample, reason| cuts.push((sample, reason));
                Chats::pick(source.clone(), part(side), length, overlong, report)
            });
            Box::new(ChatRows::new(chats.collect(), order, length, packing)) as Box<dyn Layout>
        };
        let train = rows(|side| &side.train, shuffled(options));
        let eval = options.holdout.map(|_| rows(|side| &side.eval, Order::Fixed));
        Self::new(prepared, sources, options, (train, eval), cuts)
    }

    /// Pairs for reward models: what is called a row here is a pair, which makes two rows of a
    /// batch, the chosen text first. No token is a target.
    ///
    /// Where a source's pairs are drawn from single texts, the texts are held out first and pairs drawn on either side, so
    /// that no text is on both. Training pairs are drawn by the run's seed and the stage's name, held-out ones always
    /// alike: two runs measure on the same pairs.
    pub fn pairs(prepared: &Prepared, options: &RunOptions, overlong: Overlong) -> Result<Self> {
        Self::of_pairs(prepared, options, overlong, Asked::Score)
    }

    /// Pairs for learning preferences: as [`Dataset::pairs`], with the answer's tokens, its end token
    /// among them, as targets. Pairs whose answers follow different prompts are dropped and counted.
    pub fn preferences(
        prepared: &Prepared,
        options: &RunOptions,
        overlong: Overlong,
    ) -> Result<Self> {
        Self::of_pairs(prepared, options, overlong, Asked::Answer)
    }

    fn of_pairs(
        prepared: &Prepared,
        options: &RunOptions,
        overlong: Overlong,
        asked: Asked,
    ) -> Result<Self> {
        let sources = source_parts(prepared);
        let sides = sample_sides(&sources, options.holdout)?;
        let length = options.sequence_length;
        let mut cuts = Vec::new();
        let mut pick = |part: fn(&Sides) -> &Part, (seed, stage): (u64, &str)| -> Vec<Pairs> {
            let picked = sources.iter().zip(&sides).enumerate().map(|(idx, (source, side))| {
                let report = |sample, reason| cuts.push((sample, reason));
                if source.store.summary.pools.is_none() {
                    return Pairs::pick(
                        source.clone(),
                        part(side),
                        length,
                        overlong,
                        asked,
                        report,
                    );
                }
                let key = |pass| derive(seed, stage, Purpose::Pairs, pass, idx as u64);
                Pairs::draw(source.clone(), part(side), length, overlong, asked, key, report)
            });
            picked.collect()
        };
        let train = pick(|side| &side.train, (options.seed, &options.stage));
        let eval = pick(|side| &side.eval, (0, "held-out"));
        let drawn = counts::drawn(prepared, &train, &eval);
        let rows =
            |pairs, order| Box::new(PairRows::new(pairs, order, length, asked)) as Box<dyn Layout>;
        let train = rows(train, shuffled(options));
        let eval = options.holdout.map(|_| rows(eval, Order::Fixed));
        let mut dataset = Self::new(prepared, sources, options, (train, eval), cuts)?;
        dataset.counts.drawn = drawn;
        Ok(dataset)
    }

    /// Prompts for stages that sample their own answers: a row is a prompt, up to where the assistant's words begin, and
    /// `sequence_length` the longest there may be.
    ///
    /// Fewer prompts than a step needs are repeated. Where all prompts are one and the same, it is also the held-out one.
    pub fn prompts(prepared: &Prepared, options: &RunOptions) -> Result<Self> {
        let sources = source_parts(prepared);
        let sides = prompt_sides(&sources, options.holdout)?;
        let mut cuts = Vec::new();
        let mut rows = |part: fn(&Sides) -> &Part, order: Order| {
            let prompts = sources.iter().zip(&sides).map(|(source, side)| {
                let report = |sample, reason| cuts.push((sample, reason));
                Prompts::pick(source.clone(), part(side), options.sequence_length, report)
            });
            Box::new(PromptRows::new(prompts.collect(), order)) as Box<dyn Layout>
        };
        let train = rows(|side| &side.train, shuffled(options));
        let eval = options.holdout.map(|_| rows(|side| &side.eval, Order::Fixed));
        Self::new(prepared, sources, options, (train, eval), cuts)
    }

    /// Every document once in file order, for measuring a model on a file: nothing is shuffled, held
    /// out or weighted. Its batches are those of one epoch.
    pub fn in_order(
        prepared: &Prepared,
        sequence_length: usize,
        rows_per_step: usize,
        packing: Packing,
    ) -> Result<Self> {
        let options = RunOptions {
            seed: 0,
            stage: String::new(),
            sequence_length,
            rows_per_step,
            max_steps: None,
            epochs: Some(1.0),
            max_tokens: None,
            holdout: None,
        };
        let sources = source_parts(prepared);
        let sides = match packing {
            Packing::Documents => document_sides(&sources, &options, &prepared.ids, Order::Fixed)?,
            Packing::Stream => stream_sides(&sources, &options, &prepared.ids, Order::Fixed)?,
        };
        Self::new(prepared, sources, &options, sides, Vec::new())
    }

    fn new(
        prepared: &Prepared,
        sources: Vec<SourcePart>,
        options: &RunOptions,
        (train, eval): (Box<dyn Layout>, Option<Box<dyn Layout>>),
        cuts: Vec<(u64, CutReason)>,
    ) -> Result<Self> {
        let sequence_length = options.sequence_length;
        if sequence_length == 0 || options.rows_per_step == 0 {
            return Err(Error::NoSteps { problem: "a step has no positions" });
        }
        let epoch_rows = train.n_rows(0);
        if epoch_rows == 0 || train.epoch_targets(0) == 0 {
            return Err(Error::NoTargets { sequence_length });
        }
        let eval = eval.filter(|eval| eval.n_rows(0) > 0);
        if let Some(Holdout { fraction, .. }) = options.holdout
            && fraction > 0.0
            && eval.is_none()
        {
            let n_rows = sources.iter().map(|source| source.store.n_samples()).sum();
            return Err(Error::EmptySide { fraction, side: "validation", n_rows });
        }
        let mut dataset = Self {
            sources,
            train,
            eval,
            options: options.clone(),
            pad: prepared.ids.pad,
            epoch_starts: Mutex::new(vec![0]),
            n_run_rows: 0,
            cuts,
            counts: Counts::default(),
        };
        dataset.n_run_rows = dataset.count_run_rows()?;
        dataset.counts = Counts::of(&dataset, prepared);
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
            None => Err(Error::NoSteps { problem: "nothing says when it ends" }),
            Some(0) => Err(Error::NoSteps { problem: "it ends before the first row" }),
            Some(n_rows) => Ok(n_rows),
        }
    }

    /// Rows of so many epochs; epochs beyond `enough` rows are not packed to be counted.
    fn rows_of_epochs(&self, epochs: f64, enough: Option<u64>) -> u64 {
        let whole = epochs.max(0.0).floor() as u64;
        let part = epochs - epochs.floor();
        let rows_of_part = |epoch| (part * self.train.n_rows(epoch) as f64).ceil() as u64;
        if self.train.is_constant() {
            return whole * self.train.n_rows(0) + rows_of_part(0);
        }
        for epoch in 0..whole {
            let start = self.epoch_start(epoch);
            if enough.is_some_and(|enough| start >= enough) {
                return start;
            }
        }
        self.epoch_start(whole) + rows_of_part(whole)
    }

    /// Rows before an epoch.
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

    /// The epoch that a row of the run belongs to, and its number there.
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

    /// Optimizer steps of the run; the last one may have fewer rows.
    pub fn n_steps(&self) -> u64 {
        self.n_run_rows.div_ceil(self.options.rows_per_step as u64)
    }

    /// Rows of the run.
    pub fn n_run_rows(&self) -> u64 {
        self.n_run_rows
    }

    /// Rows of a batch for each row of the run: two where a row is a pair, else one.
    pub fn batch_rows(&self) -> u64 {
        self.train.batch_rows()
    }

    /// Rows of an epoch.
    pub fn n_rows(&self, epoch: u64) -> u64 {
        self.train.n_rows(epoch)
    }

    /// How many epochs the rows before a step make, for display.
    pub fn epoch_of(&self, step: u64) -> f64 {
        let row = (step * self.options.rows_per_step as u64).min(self.n_run_rows);
        let (epoch, within) = self.locate(row);
        epoch as f64 + within as f64 / self.train.n_rows(epoch) as f64
    }

    /// The rows of one step; empty behind the last one.
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

    /// Rows of the validation part; 0 without one.
    pub fn n_eval_rows(&self) -> u64 {
        self.eval.as_ref().map_or(0, |eval| eval.n_rows(0))
    }

    /// The validation part in a fixed order. `max_rows` takes an even sample of its rows.
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
                // Evenly spaced: row i of m stands for n / m rows.
                let row = (u128::from(row) * u128::from(n_rows) / u128::from(n_taken)) as u64;
                if let Some(eval) = &self.eval {
                    eval.fill(0, row, &mut writer);
                }
            }
            batch
        })
    }

    /// What was counted: rows, targets, what was cut, dropped, held out.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Targets of the whole run; every row of a last, partial epoch is looked at.
    pub fn run_targets(&self) -> u64 {
        let (epochs, rows) = self.locate(self.n_run_rows);
        let whole: u64 = if self.train.is_constant() {
            epochs * self.train.epoch_targets(0)
        } else {
            (0..epochs).map(|epoch| self.train.epoch_targets(epoch)).sum()
        };
        whole + (0..rows).map(|row| self.train.n_targets(epochs, row)).sum::<u64>()
    }

    /// Where a sample of a batch came from.
    pub fn place(&self, sample: u64) -> Option<Place> {
        let after = self.sources.partition_point(|source| source.first_sample <= sample);
        let source = self.sources.get(after.checked_sub(1)?)?;
        let within = sample - source.first_sample;
        (within < source.store.n_samples()).then(|| source.store.place(within))
    }

    /// The options that it was made with.
    pub fn options(&self) -> &RunOptions {
        &self.options
    }
}
