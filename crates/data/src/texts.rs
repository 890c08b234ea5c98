//! Texts of a source without tokens, for training a tokenizer and for inspection.

use std::path::Path;

use recipe::{Format, SampleKind};

use crate::cache::BUILDER_VERSION;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::location::Location;
use crate::rows::{PoolEntry, RowFormat};
use crate::source::{BytesRead, Row, TextDocument, file_format};
use crate::source_rows::{SourceRows, convert_row, detect_format, why_no_rows};
use crate::spec::SourceSpec;

/// Iterator of texts.
type Texts = Box<dyn Iterator<Item = Result<String>> + Send>;

/// Size of a chunk of a plain text file, in bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// Calls `take` with the texts of sources in order: each document, or the content of each message.
///
/// A plain text file arrives in chunks that end with a line. Bad rows are skipped here; preparing the stage decides
/// whether they stop the run, and reports them. A source without any text is an error: that of its first bad row, if
/// there is one.
pub fn texts(specs: &[SourceSpec], kind: SampleKind, take: &mut dyn FnMut(String)) -> Result<()> {
    for spec in specs {
        let (mut n_taken, mut first_bad) = (0_u64, None);
        for text in source_texts(spec, kind)? {
            match text {
                Ok(text) => {
                    n_taken += 1;
                    take(text);
                }
                Err(error @ Error::Row { .. }) => {
                    first_bad.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let (0, Some(error)) = (n_taken, first_bad) {
            return Err(error);
        }
    }
    Ok(())
}

/// The start of a plain text file, of at least one character and about `n_bytes` bytes, and whether that is all of it.
/// Training reads such a file as one document. A file of white space is an error, however long it is.
pub fn text_start(path: &Path, n_bytes: usize) -> Result<(String, bool)> {
    let mut document = TextDocument::open(path, None, &BytesRead::default())?;
    let start = document.next_chunk(n_bytes)?.unwrap_or_default();
    let (mut is_blank, mut is_whole) = (start.trim().is_empty(), true);
    while let Some(more) = document.next_chunk(CHUNK_BYTES)? {
        is_whole = false;
        is_blank &= more.trim().is_empty();
        if !is_blank {
            break;
        }
    }
    if is_blank {
        return Err(Error::EmptyFile { path: path.to_path_buf() });
    }
    Ok((start, is_whole))
}

/// Calls `take` with the location and the texts of each row of sources, as [`texts`] reads them. A plain text file has one
/// location and arrives in parts. Bad rows are skipped.
pub fn located_texts(
    specs: &[SourceSpec],
    kind: SampleKind,
    take: &mut dyn FnMut(&str, &[String]),
) -> Result<()> {
    for spec in specs {
        if is_plain(spec, kind)? {
            let mut texts = PlainTexts::new(spec);
            while let Some(text) = texts.next_text()? {
                take(&texts.place, &[text]);
            }
            continue;
        }
        let Some(row_format) = detect_format(spec, kind)? else { continue };
        for row in SourceRows::open(spec, &row_format, BytesRead::default()) {
            match row_texts(row, &row_format, kind) {
                Ok((texts, location)) => take(&location.to_string(), &texts),
                Err(Error::Row { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Key that changes whenever `texts` would return other texts.
pub fn texts_key(specs: &[SourceSpec], kind: SampleKind, cache_dir: &Path) -> Result<String> {
    let mut sources = Vec::with_capacity(specs.len());
    for spec in specs {
        sources.push(crate::cache::reading_inputs(spec, cache_dir)?);
    }
    let kind = match kind {
        SampleKind::Documents => serde_json::json!(false),
        SampleKind::Chats => serde_json::json!(true),
        SampleKind::Pairs => serde_json::json!("pairs"),
        SampleKind::Completions => serde_json::json!("completions"),
        SampleKind::Prompts => serde_json::json!("prompts"),
    };
    let key = serde_json::json!([BUILDER_VERSION, kind, sources]);
    Ok(fsio::sha256_hex(key.to_string().as_bytes()))
}

/// Whether a source is read as plain text in chunks.
fn is_plain(spec: &SourceSpec, kind: SampleKind) -> Result<bool> {
    let mut plain = false;
    for file in &spec.files {
        plain |= file_format(file, spec.format)? == Format::Text;
    }
    Ok(plain && spec.filter.is_none() && kind == SampleKind::Documents)
}

fn source_texts(spec: &SourceSpec, kind: SampleKind) -> Result<Texts> {
    if is_plain(spec, kind)? {
        return Ok(Box::new(PlainTexts::new(spec)));
    }
    let Some(row_format) = detect_format(spec, kind)? else {
        return Err(why_no_rows(spec));
    };
    let rows = SourceRows::open(spec, &row_format, BytesRead::default());
    let texts = rows.flat_map(move |row| match row_texts(row, &row_format, kind) {
        Ok((texts, _)) => texts.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    });
    Ok(Box::new(texts))
}

fn row_texts(
    row: Result<Row>,
    row_format: &RowFormat,
    kind: SampleKind,
) -> Result<(Vec<String>, Location)> {
    let contents = |dialogues: Vec<Dialogue>| -> Vec<String> {
        dialogues.into_iter().flat_map(|d| d.messages).map(|message| message.content).collect()
    };
    convert_row(row, |row| match kind {
        SampleKind::Documents => row_format.document_of(row).map(|text| vec![text]),
        SampleKind::Chats => row_format
            .chats_of(row)
            .map(|chats| contents(chats.into_iter().map(|chat| chat.dialogue).collect())),
        SampleKind::Pairs if row_format.is_pool() => {
            row_format.pool_entry(row).map(|pool_entry| match pool_entry {
                PoolEntry::Text(_, text) => contents(vec![text.dialogue]),
                PoolEntry::Neither | PoolEntry::Both | PoolEntry::Empty => Vec::new(),
            })
        }
        SampleKind::Pairs => row_format.pair_of(row).map(|pair| contents(pair.into())),
        SampleKind::Completions => row_format.completions_of(row).map(|completions| {
            contents(completions.into_iter().map(|(_, dialogue)| dialogue).collect())
        }),
        SampleKind::Prompts => row_format.prompt_of(row).map(|dialogue| contents(vec![dialogue])),
    })
}

/// Plain text files in chunks.
struct PlainTexts {
    files: std::vec::IntoIter<std::path::PathBuf>,
    lines_left: Option<u64>,
    document: Option<TextDocument>,
    /// The file that is being read.
    place: String,
    /// Unfinished line at the end of the last chunk.
    rest: String,
    failed: bool,
}

impl PlainTexts {
    fn new(spec: &SourceSpec) -> Self {
        let files = spec.files.paths.clone().into_iter();
        Self {
            files,
            lines_left: spec.limit,
            document: None,
            place: String::new(),
            rest: String::new(),
            failed: false,
        }
    }

    fn next_text(&mut self) -> Result<Option<String>> {
        loop {
            let Some(document) = &mut self.document else {
                let Some(file) = self.files.next() else { return Ok(None) };
                if self.lines_left == Some(0) {
                    return Ok(None);
                }
                self.place = file.display().to_string();
                let read = BytesRead::default();
                self.document = Some(TextDocument::open(&file, self.lines_left, &read)?);
                continue;
            };
            let Some(chunk) = document.next_chunk(CHUNK_BYTES)? else {
                let used = document.n_lines();
                self.lines_left = self.lines_left.map(|left| left.saturating_sub(used));
                self.document = None;
                if self.rest.is_empty() {
                    continue;
                }
                return Ok(Some(std::mem::take(&mut self.rest)));
            };
            self.rest.push_str(&chunk);
            if let Some(end) = self.rest.rfind('\n') {
                let rest = self.rest.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.rest, rest)));
            }
        }
    }
}

impl Iterator for PlainTexts {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let text = self.next_text();
        self.failed = text.is_err();
        text.transpose()
    }
}
