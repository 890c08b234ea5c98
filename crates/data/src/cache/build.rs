//! Reads a source, tokenises it on all cores and writes its cache.
//!
//! A thread reads and cuts while the others tokenise; at most a few batches are in memory.
//! It deliberately keeps the order of the file: sample numbers mean something to people.

use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use recipe::{Format, OnBadRow};
use serde_json::{Value, json};

use crate::cache::store::{
    GROUPS, HASHES, MARKS, OFFSETS, PLACES, SPANS, Summary, TOKENS, Targets,
};
use crate::cache::{Content, PrepareOptions, Progress};
use crate::error::{Error, Result};
use crate::place::{Place, Position};
use crate::source::{BytesRead, file_format, read_all};
use crate::spec::SourceSpec;

mod chats;
mod documents;

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
    let counts = match options.content {
        Content::Documents => documents::run(spec, options, &read, &mut writer, &mut on_batch)?,
        Content::Chats(template) => {
            chats::run(spec, options, template, &read, &mut writer, &mut on_batch)?
        }
    };
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

/// Counts rows, and leaves out or stops at bad ones as the recipe says.
#[derive(Debug)]
struct RowCounter {
    on_bad_row: OnBadRow,
    cap: u64,
    source_path: String,
    n_rows: u64,
    n_bad: u64,
    bad: Vec<String>,
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
        }
    }

    /// Counts one row; None if it is bad and left out.
    fn accept<T>(&mut self, row: Result<T>) -> Result<Option<T>> {
        self.n_rows += 1;
        self.check(row)
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

    /// Counts the rows of a source that has no good one, to say what is wrong with them.
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

/// What a finished sample adds to the columns besides its tokens.
struct SampleEnd {
    place: Place,
    hash: u64,
    group: u64,
    n_bytes: u64,
}

/// Writes the columns of one source.
struct Writer {
    dir: fsio::DirWriter,
    tokens: fsio::HashingFile,
    marks: Option<fsio::HashingFile>,
    offsets: Vec<u8>,
    hashes: Vec<u8>,
    groups: Vec<u8>,
    spans: Vec<u8>,
    places: Vec<u8>,
    files: Vec<std::path::PathBuf>,
    scratch: Vec<u8>,
    summary: Summary,
}

impl Writer {
    fn begin(dir: &Path, spec: &SourceSpec, options: &PrepareOptions<'_>) -> Result<Self> {
        let formats: Result<Vec<Format>> =
            spec.files.iter().map(|file| file_format(file, spec.format)).collect();
        let formats = formats?;
        let chats = matches!(options.content, Content::Chats(_));
        let mut dir = fsio::DirWriter::begin(dir)?;
        let summary = Summary {
            wide: options.tokenizer.vocab_size() > 1 << 16,
            binary: formats.iter().any(|f| matches!(f, Format::Parquet | Format::Arrow)),
            chats,
            ..Summary::default()
        };
        Ok(Self {
            tokens: dir.create(TOKENS)?,
            marks: chats.then(|| dir.create(MARKS)).transpose()?,
            dir,
            offsets: 0_u64.to_le_bytes().to_vec(),
            hashes: Vec::new(),
            groups: Vec::new(),
            spans: Vec::new(),
            places: Vec::new(),
            files: spec.files.clone(),
            scratch: Vec::new(),
            summary,
        })
    }

    fn write_tokens(&mut self, ids: &[u32]) -> Result<()> {
        self.scratch.clear();
        for id in ids {
            if self.summary.wide {
                self.scratch.extend_from_slice(&id.to_le_bytes());
            } else {
                self.scratch.extend_from_slice(&(*id as u16).to_le_bytes());
            }
        }
        self.summary.n_tokens += ids.len() as u64;
        let path = self.dir.final_dir().join(TOKENS);
        self.tokens.write_all(&self.scratch).map_err(|error| Error::io(&path, error))
    }

    /// A chat's roles and targets, whole.
    fn write_marks(&mut self, marks: &[u8]) -> Result<()> {
        self.spans.extend_from_slice(&Targets::of(marks).to_bytes());
        let path = self.dir.final_dir().join(MARKS);
        match &mut self.marks {
            Some(file) => file.write_all(marks).map_err(|error| Error::io(&path, error)),
            None => Ok(()),
        }
    }

    /// Whether no token came since the last sample ended.
    fn sample_is_empty(&self) -> bool {
        self.offsets.ends_with(&self.summary.n_tokens.to_le_bytes())
    }

    fn end_sample(&mut self, end: &SampleEnd) {
        let file = self.files.iter().position(|file| file.as_path() == &*end.place.file);
        let number = match end.place.position {
            Position::Line(number) | Position::Row(number) => number,
        };
        self.places.extend_from_slice(&(file.unwrap_or(0) as u32).to_le_bytes());
        self.places.extend_from_slice(&number.to_le_bytes());
        self.offsets.extend_from_slice(&self.summary.n_tokens.to_le_bytes());
        self.hashes.extend_from_slice(&end.hash.to_le_bytes());
        if self.summary.chats {
            self.groups.extend_from_slice(&end.group.to_le_bytes());
        }
        self.summary.n_samples += 1;
        self.summary.n_bytes += end.n_bytes;
    }

    fn finish(mut self, counts: RowCounter, inputs: &Value) -> Result<()> {
        self.summary.n_rows = counts.n_rows;
        self.summary.n_bad = counts.n_bad;
        self.summary.bad = counts.bad;
        self.tokens.finish()?;
        if let Some(marks) = self.marks {
            marks.finish()?;
            self.dir.write(GROUPS, &self.groups)?;
            self.dir.write(SPANS, &self.spans)?;
        }
        self.dir.write(OFFSETS, &self.offsets)?;
        self.dir.write(HASHES, &self.hashes)?;
        self.dir.write(PLACES, &self.places)?;
        let final_dir = self.dir.final_dir().to_path_buf();
        match self.dir.commit(json!({ "inputs": inputs, "summary": self.summary })) {
            Ok(_) => Ok(()),
            // Another process was quicker with the same inputs; its cache is as good as ours.
            Err(_) if fsio::verify_dir(&final_dir).is_ok() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
