//! Reads a source, tokenizes it on all cores and writes its cache.
//!
//! One thread reads and splits while the others tokenize; at most a few batches are in memory. Samples keep the order of
//! the file.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use recipe::{OnBadRow, SampleKind};
use serde_json::Value;

use crate::cache::store::PoolCounts;
use crate::cache::{Content, PAIRS, PrepareOptions, Progress};
use crate::error::{Error, Result};
use crate::rows::RowFormat;
use crate::source::{BytesRead, read_all};
use crate::source_rows::detect_format;
use crate::spec::SourceSpec;

mod chats;
mod completions;
mod documents;
mod examples;
mod ids;
mod label_pools;
mod pairs;
mod prompts;
mod writer;

use chats::ChatExample;
use completions::CompletionExample;
use label_pools::LabelledExample;
use pairs::PairExample;
use prompts::PromptExample;
use writer::{SampleEnd, Writer};

/// Text per batch and core, in bytes; large enough that no core waits long for the slowest.
const BATCH_BYTES_PER_CORE: usize = 1 << 20;
/// Batches that the reader may be ahead of the tokenizer.
const BATCHES_AHEAD: usize = 2;
/// Number of stored messages of bad rows.
const BAD_ROWS_KEPT: usize = 100;

/// Builds the cache of one source in `dir`.
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
    // Both texts of a pair are written.
    let texts_per_sample = if report.unit == PAIRS { 2 } else { 1 };
    let mut on_batch = |writer: &Writer| {
        report.bytes_read = read.get();
        report.n_rows = writer.summary.n_samples / texts_per_sample;
        report.n_tokens = writer.summary.n_tokens;
        progress(report);
    };
    let columns = &mut writer;
    let kind = match options.content {
        Content::Documents => Some(SampleKind::Documents),
        Content::Chats(..) => Some(SampleKind::Chats),
        Content::Pairs(_) | Content::Completions(_) | Content::Prompts(_) => None,
    };
    let of_ids = match kind {
        Some(kind) => detect_format(spec, kind)?.filter(RowFormat::has_ids),
        None => None,
    };
    if let Some(format) = &of_ids {
        let counts = ids::run(spec, options, format, &read, columns, &mut on_batch)?;
        writer.summary.n_not_finite = read.n_not_finite();
        return writer.finish(counts, inputs);
    }
    let counts = match options.content {
        Content::Documents => documents::run(spec, options, &read, columns, &mut on_batch)?,
        Content::Chats(template, _) => {
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
        Content::Completions(template) => examples::run::<CompletionExample>(
            spec,
            options,
            template,
            &read,
            columns,
            &mut on_batch,
        )?,
        Content::Prompts(template) => {
            examples::run::<PromptExample>(spec, options, template, &read, columns, &mut on_batch)?
        }
    };
    counts.check_pools(spec)?;
    writer.summary.n_not_finite = read.n_not_finite();
    writer.finish(counts, inputs)
}

/// Bytes of text per batch.
fn batch_bytes() -> usize {
    BATCH_BYTES_PER_CORE * rayon::current_num_threads().max(1)
}

/// Runs `read` on a thread of its own and `take` on this thread, connected by a channel.
fn pipeline<T: Send, R: Send>(
    read: impl FnOnce(&SyncSender<T>) -> Result<R> + Send,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<R> {
    std::thread::scope(|scope| {
        let (sender, receiver): (SyncSender<T>, Receiver<T>) = sync_channel(BATCHES_AHEAD);
        let spawned = std::thread::Builder::new().spawn_scoped(scope, move || read(&sender));
        let reader = spawned.map_err(|source| Error::Threads { source: fsio::NoThread(source) })?;
        let mut taken = Ok(());
        for batch in &receiver {
            taken = take(batch);
            if taken.is_err() {
                break;
            }
        }
        // A reader that is still sending gets an error and ends.
        drop(receiver);
        let read = reader.join().unwrap_or_else(|_| Err(Error::ReaderFailed));
        taken.and(read)
    })
}

/// The channel is closed because the receiving side failed; it reports the error.
struct Closed;

/// Counts rows, and skips bad ones or stops at them as the recipe says.
#[derive(Debug)]
struct RowCounter {
    on_bad_row: OnBadRow,
    cap: u64,
    source_path: String,
    n_rows: u64,
    n_bad: u64,
    bad: Vec<String>,
    /// Rows that `where` removes, among those counted.
    n_filtered: u64,
    /// Rows with a label but no text.
    n_empty: u64,
    /// Rows whose label says that the completion is not desirable.
    n_undesirable: u64,
    /// Number of rows by pool, if pairs are drawn.
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
            n_undesirable: 0,
            pools: PoolCounts::default(),
        }
    }

    /// Counts one row. Returns `None` if it is bad and skipped.
    fn accept<T>(&mut self, row: Result<T>) -> Result<Option<T>> {
        self.n_rows += 1;
        self.check(row)
    }

    /// Counts the rows that `where` has removed.
    fn add_filtered(&mut self, n_filtered: u64) {
        self.n_rows += n_filtered;
        self.n_filtered += n_filtered;
    }

    /// Checks that there are texts of both labels, if pairs are drawn.
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

    /// As `accept`, for a row that is already counted.
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

    /// Adds the bad rows that another counter found among the rows counted here.
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

    /// Reads the rows of a source without any good row, to report the problems.
    fn without_good_rows(mut self, spec: &SourceSpec) -> Result<Self> {
        let files = spec.files.clone();
        for row in read_all(files, spec.format, None, BytesRead::default()) {
            self.accept(row)?;
        }
        self.finish()
    }

    /// Checks that at most a few answers are empty: many mean that something is wrong with the data.
    fn check_empty_answers(&self) -> Result<()> {
        if self.n_empty.saturating_mul(20) <= self.n_rows {
            return Ok(());
        }
        Err(Error::EmptyAnswers {
            source_path: self.source_path.clone(),
            n_empty: self.n_empty,
            n_rows: self.n_rows,
        })
    }

    /// Checks that the source has at least one usable row.
    fn finish(self) -> Result<Self> {
        if self.n_rows == 0 {
            return Err(Error::NoRows { source_path: self.source_path });
        }
        if self.n_filtered == self.n_rows {
            let (source_path, n_rows) = (self.source_path, self.n_rows);
            return Err(Error::FilterMatchesNothing { source_path, n_rows });
        }
        if self.n_undesirable > 0 && self.n_undesirable + self.n_bad >= self.n_rows {
            return Err(Error::BadSource {
                source_path: self.source_path,
                problem: "every row has the label false, and fine-tuning reads those with true"
                    .to_owned(),
            });
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
