//! Reads a source, tokenises it on all cores and writes its cache.
//!
//! A thread reads and cuts while the others tokenise; at most a few batches are in memory.
//! It deliberately keeps the order of the file: sample numbers mean something to people.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use recipe::OnBadRow;
use serde_json::Value;

use crate::cache::store::PoolCounts;
use crate::cache::{Content, PrepareOptions, Progress};
use crate::error::{Error, Result};
use crate::source::{BytesRead, read_all};
use crate::spec::SourceSpec;

mod chats;
mod documents;
mod examples;
mod label_pools;
mod pairs;
mod prompts;
mod writer;

use chats::ChatExample;
use label_pools::LabelledExample;
use pairs::PairExample;
use prompts::PromptExample;
use writer::{SampleEnd, Writer};

/// Text that one batch holds for each core; large enough that no core waits long for the last.
const BATCH_BYTES_PER_CORE: usize = 1 << 20;
/// Batches between the reader and the tokenizer.
const BATCHES_AHEAD: usize = 2;
/// Messages of bad rows that are kept.
const BAD_ROWS_KEPT: usize = 100;

/// Builds one source's cache at `dir`.
pub(crate) fn build(
    dir: &Path,
    spec: &SourceSpec,
    options: &PrepareOptions<'_>,
    inputs: &Value,
    report: &mut Progress,
    progress: &mut dyn FnMut(&Progress),
) -> Result<()> {
    let read = BytesRead::default();
    let mut writer = Writer::begin(dir, spec, options)?;
    let mut on_batch = |writer: &Writer| {
        report.bytes_read = read.get();
        report.n_rows = writer.summary.n_samples;
        report.n_tokens = writer.summary.n_tokens;
        progress(report);
    };
    let columns = &mut writer;
    let counts = match options.content {
        Content::Documents => documents::run(spec, options, &read, columns, &mut on_batch)?,
        Content::Chats(template) => {
            examples::run::<ChatExample>(spec, options, template, &read, columns, &mut on_batch)?
        }
        Content::Pairs(template) if spec.pairs.is_some() => examples::run::<LabelledExample>(
            spec,
            options,
            template,
            &read,
            columns,
            &mut on_batch,
        )?,
        Content::Pairs(template) => {
            examples::run::<PairExample>(spec, options, template, &read, columns, &mut on_batch)?
        }
        Content::Prompts(template) => {
            examples::run::<PromptExample>(spec, options, template, &read, columns, &mut on_batch)?
        }
    };
    counts.check_pools(spec)?;
    writer.finish(counts, inputs)
}

/// Bytes of text that a batch is filled with.
fn batch_bytes() -> usize {
    BATCH_BYTES_PER_CORE * rayon::current_num_threads().max(1)
}

/// Starts the reading half on its own thread and runs the other half here.
fn pipeline<T: Send, R: Send>(
    read: impl FnOnce(&SyncSender<T>) -> Result<R> + Send,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<R> {
    std::thread::scope(|scope| {
        let (sender, receiver): (SyncSender<T>, Receiver<T>) = sync_channel(BATCHES_AHEAD);
        let reader = scope.spawn(move || read(&sender));
        let mut taken = Ok(());
        for batch in &receiver {
            taken = take(batch);
            if taken.is_err() {
                break;
            }
        }
        // A reader that is still sending then sees that nobody listens, and ends.
        drop(receiver);
        let read = reader.join().unwrap_or_else(|_| Err(Error::ReaderFailed));
        taken.and(read)
    })
}

/// The reader's side of the pipeline was closed: the other side has an error to tell.
struct Closed;

/// DatasetCounts rows, and leaves out or stops at bad ones as the recipe says.
#[derive(Debug)]
struct RowCounter {
    on_bad_row: OnBadRow,
    cap: u64,
    source_path: String,
    n_rows: u64,
    n_bad: u64,
    bad: Vec<String>,
    /// Rows that `where` leaves out, among those counted.
    n_filtered: u64,
    /// Rows without text in a pool.
    n_empty: u64,
    /// What rows are to the pairs that are drawn from them.
    pools: PoolCounts,
}

impl RowCounter {
    fn new(spec: &SourceSpec, options: &PrepareOptions<'_>) -> Self {
        Self {
            on_bad_row: options.on_bad_row,
            cap: options.max_bad_rows,
            source_path: spec.path.clone(),
            n_rows: 0,
            n_bad: 0,
            bad: Vec::new(),
            n_filtered: 0,
            n_empty: 0,
            pools: PoolCounts::default(),
        }
    }

    /// DatasetCounts one row; None if it is bad and left out.
    fn accept<T>(&mut self, row: Result<T>) -> Result<Option<T>> {
        self.n_rows += 1;
        self.check(row)
    }

    /// DatasetCounts the rows that `where` has left out.
    fn leave_out(&mut self, n_filtered: u64) {
        self.n_rows += n_filtered;
        self.n_filtered += n_filtered;
    }

    /// Pairs need texts on both sides.
    fn check_pools(&self, spec: &SourceSpec) -> Result<()> {
        if spec.pairs.is_none() {
            return Ok(());
        }
        let labels = [("chosen", self.pools.chosen), ("rejected", self.pools.rejected)];
        match labels.into_iter().find(|(_, n)| *n == 0) {
            None => Ok(()),
            Some((label, _)) => Err(Error::EmptyPool {
                source_path: self.source_path.clone(),
                label,
                n_rows: self.n_rows,
            }),
        }
    }

    /// As `accept`, for a row that was counted before.
    fn check<T>(&mut self, row: Result<T>) -> Result<Option<T>> {
        let error = match row {
            Ok(row) => return Ok(Some(row)),
            Err(error @ Error::Row { .. }) if self.on_bad_row == OnBadRow::Skip => error,
            Err(error) => return Err(error),
        };
        self.n_bad += 1;
        if self.bad.len() < BAD_ROWS_KEPT {
            self.bad.push(error.to_string());
        }
        if self.n_bad > self.cap {
            let first = self.bad.first().cloned().unwrap_or_default();
            return Err(Error::TooManyBadRows { n_bad: self.n_bad, cap: self.cap, first });
        }
        Ok(None)
    }

    /// Adds the bad rows that another counter found among those that were counted here.
    fn add_bad(&mut self, other: Self, options: &PrepareOptions<'_>) -> Result<()> {
        self.n_bad += other.n_bad;
        self.bad.extend(other.bad);
        if self.n_bad > 0 && self.n_bad > options.max_bad_rows {
            let first = self.bad.first().cloned().unwrap_or_default();
            let (n_bad, cap) = (self.n_bad, options.max_bad_rows);
            return Err(Error::TooManyBadRows { n_bad, cap, first });
        }
        Ok(())
    }

    /// DatasetCounts the rows of a source that has no good one, to say what is wrong with them.
    fn without_good_rows(mut self, spec: &SourceSpec) -> Result<Self> {
        let files = spec.files.clone();
        for row in read_all(files, spec.format, None, BytesRead::default()) {
            self.accept(row)?;
        }
        self.finish()
    }

    /// A source that gave nothing is an error.
    fn finish(self) -> Result<Self> {
        if self.n_rows == 0 {
            return Err(Error::NoRows { source_path: self.source_path });
        }
        if self.n_filtered == self.n_rows {
            let (source_path, n_rows) = (self.source_path, self.n_rows);
            return Err(Error::FilterMatchesNothing { source_path, n_rows });
        }
        if self.n_bad >= self.n_rows {
            let first = self.bad.first().cloned().unwrap_or_default();
            return Err(Error::AllRowsBad {
                source_path: self.source_path,
                n_bad: self.n_bad,
                first,
            });
        }
        Ok(self)
    }
}
