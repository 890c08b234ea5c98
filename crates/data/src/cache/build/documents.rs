//! Documents of a source, long ones in chunks, tokenized in batches over all cores. The dataset adds special tokens.

use std::sync::mpsc::SyncSender;

use rayon::prelude::*;
use recipe::{Format, SampleKind};
use tokenizer::Tokenizer;

use super::{Closed, RowCounter, SampleEnd, Writer, batch_bytes, pipeline};
use crate::cache::PrepareOptions;
use crate::cache::chunks::{CHUNK_BYTES, Chunker};
use crate::error::{Error, Result};
use crate::limits;
use crate::location::Location;
use crate::row_problem::RowProblem;
use crate::rows::short_hash;
use crate::source::{BytesRead, TextDocument, file_format};
use crate::source_rows::{SourceRows, convert_row, detect_format};
use crate::spec::SourceSpec;

/// A chunk of a document; the last chunk contains the end of the sample.
struct Chunk {
    text: String,
    /// The document's row, for errors.
    location: Location,
    end: Option<SampleEnd>,
}

pub(super) fn run(
    spec: &SourceSpec,
    options: &PrepareOptions<'_>,
    read: &BytesRead,
    writer: &mut Writer,
    on_batch: &mut dyn FnMut(&Writer),
) -> Result<RowCounter> {
    let tokenizer = options.tokenizer;
    let counter = RowCounter::new(spec, options);
    // With `where`, a line is a row with the single column `text`.
    let plain = is_plain_text(spec)? && spec.filter.is_none();
    writer.summary.plain_text = plain;
    pipeline(
        |sender| {
            let mut batcher = Batcher { sender, tokenizer, batch: Vec::new(), n_bytes: 0 };
            let counter = if plain {
                read_texts(spec, counter, read, &mut batcher)?
            } else {
                read_documents(spec, counter, read, &mut batcher)?
            };
            // If the channel is closed, the other side reports the error.
            let _ = batcher.flush();
            Ok(counter)
        },
        |batch: Vec<Chunk>| {
            write_batch(&batch, tokenizer, writer)?;
            on_batch(writer);
            Ok(())
        },
    )
}

fn is_plain_text(spec: &SourceSpec) -> Result<bool> {
    let mut plain = false;
    for file in &spec.files {
        plain |= file_format(file, spec.format)? == Format::Text;
    }
    Ok(plain)
}

fn write_batch(batch: &[Chunk], tokenizer: &Tokenizer, writer: &mut Writer) -> Result<()> {
    let encode = |chunk: &Chunk| {
        let encode = || tokenizer.encode_plain(&chunk.text);
        let encoded = fsio::watchdog::located(|| chunk.location.to_string(), encode);
        encoded.map_err(|error| {
            let problem = RowProblem::Encoding { reason: error.to_string(), hint: error.hint() };
            Error::row(chunk.location.clone(), problem)
        })
    };
    let encoded: Vec<Result<Vec<u32>>> = batch.par_iter().map(encode).collect();
    for (chunk, ids) in batch.iter().zip(encoded) {
        writer.write_tokens(&ids?)?;
        match &chunk.end {
            Some(_) if writer.sample_is_empty() => writer.summary.n_empty += 1,
            Some(end) => writer.end_sample(end)?,
            None => {}
        }
    }
    Ok(())
}

/// Collects chunks into batches and sends them.
struct Batcher<'a> {
    sender: &'a SyncSender<Vec<Chunk>>,
    tokenizer: &'a Tokenizer,
    batch: Vec<Chunk>,
    n_bytes: usize,
}

impl Batcher<'_> {
    fn add(
        &mut self,
        text: String,
        location: &Location,
        end: Option<SampleEnd>,
    ) -> std::result::Result<(), Closed> {
        // A row of one letter takes the memory of its chunk.
        self.n_bytes += text.len() + size_of::<Chunk>();
        self.batch.push(Chunk { text, location: location.clone(), end });
        if self.n_bytes >= batch_bytes() { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> std::result::Result<(), Closed> {
        self.n_bytes = 0;
        if self.batch.is_empty() {
            return Ok(());
        }
        self.sender.send(std::mem::take(&mut self.batch)).map_err(|_| Closed)
    }
}

/// Reads plain text: a file is a document.
fn read_texts(
    spec: &SourceSpec,
    mut counter: RowCounter,
    read: &BytesRead,
    batcher: &mut Batcher<'_>,
) -> Result<RowCounter> {
    let mut lines_left = spec.limit;
    for path in &spec.files {
        if lines_left == Some(0) {
            break;
        }
        let mut document = TextDocument::open(path, lines_left, read)?;
        let location = Location::line(&document.file, 1);
        let mut chunker = Chunker::new(batcher.tokenizer);
        let mut hasher = fsio::Sha256::new();
        let mut n_bytes = 0;
        let mut is_blank = true;
        while let Some(text) = document.next_chunk(CHUNK_BYTES)? {
            hasher.update(text.as_bytes());
            n_bytes += text.len() as u64;
            is_blank &= text.trim().is_empty();
            for chunk in chunker.push(&text).map_err(|_| indivisible(&location))? {
                if batcher.add(chunk, &location, None).is_err() {
                    return Ok(counter);
                }
            }
        }
        // A limit may end before the first text of a file, which is not empty then.
        let is_cut = lines_left.is_some_and(|left| document.n_lines() >= left);
        if is_blank && !is_cut {
            return Err(Error::EmptyFile { path: path.clone() });
        }
        counter.accept(Ok(()))?;
        lines_left = lines_left.map(|left| left.saturating_sub(document.n_lines()));
        let hash = short_hash(hasher);
        let end = SampleEnd { location: location.clone(), hash, group: hash, n_bytes };
        if batcher.add(chunker.finish(), &location, Some(end)).is_err() {
            return Ok(counter);
        }
    }
    counter.finish()
}

/// Reads rows: a row is a document.
fn read_documents(
    spec: &SourceSpec,
    mut counter: RowCounter,
    read: &BytesRead,
    batcher: &mut Batcher<'_>,
) -> Result<RowCounter> {
    let Some(row_format) = detect_format(spec, SampleKind::Documents)? else {
        return counter.without_good_rows(spec);
    };
    let mut rows = SourceRows::open(spec, &row_format, read.clone());
    for row in rows.by_ref() {
        let document = convert_row(row, |row| row_format.document_of(row));
        let Some((text, location)) = counter.accept(document)? else { continue };
        // As in a text file, white space alone is no document; the row is counted as empty.
        let text = if text.trim().is_empty() { String::new() } else { text };
        if add_document(text, location, batcher)?.is_none() {
            return Ok(counter);
        }
    }
    counter.add_filtered(rows.n_filtered());
    counter.finish()
}

/// Adds one document. Returns `None` if the channel is closed.
fn add_document(text: String, location: Location, batcher: &mut Batcher<'_>) -> Result<Option<()>> {
    let hash = crate::rows::text_hash(&text);
    let n_bytes = text.len() as u64;
    let end = SampleEnd { location: location.clone(), hash, group: hash, n_bytes };
    if text.len() < 2 * CHUNK_BYTES {
        return Ok(batcher.add(text, &location, Some(end)).ok());
    }
    let mut chunker = Chunker::new(batcher.tokenizer);
    for chunk in chunker.push(&text).map_err(|_| indivisible(&end.location))? {
        if batcher.add(chunk, &location, None).is_err() {
            return Ok(None);
        }
    }
    Ok(batcher.add(chunker.finish(), &location, Some(end)).ok())
}

fn indivisible(location: &Location) -> Error {
    Error::row(location.clone(), RowProblem::Indivisible { limit: limits::CHUNK_BYTES as u64 })
}
