//! A prepared source, mapped: tokens by sample, with hashes and places.
//!
//! The columns are plain little-endian arrays, one file each, instead of Arrow IPC: a token is then
//! one bounds-checked load at a computed offset, in 2 bytes where the vocabulary allows it, with no
//! record batches to find and no framing to trust, and the directory's MANIFEST checks the bytes.
//! It deliberately decides nothing: what is trained on and in which order is the dataset's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::place::{Place, Position};
use crate::rows::Side;

pub(crate) const TOKENS: &str = "tokens.bin";
pub(crate) const OFFSETS: &str = "offsets.bin";
pub(crate) const HASHES: &str = "hashes.bin";
pub(crate) const PLACES: &str = "places.bin";
/// Chats only: a token's role and whether it is a target, one byte.
pub(crate) const MARKS: &str = "marks.bin";
/// Chats only: the hash that decides on which side of a split a sample stands.
pub(crate) const GROUPS: &str = "groups.bin";
/// Chats only: first target, last target, number of targets, as 4 bytes each.
pub(crate) const SPANS: &str = "spans.bin";

/// Pools only: 0 for a text that is chosen, 1 for one that is rejected, one byte.
pub(crate) const SIDES: &str = "sides.bin";

/// Pairs only, where the recipe names a column of margins: one number a pair, 4 bytes.
pub(crate) const MARGINS: &str = "margins.bin";

/// The bit of a mark that says: a target.
pub(crate) const TARGET_BIT: u8 = 0x80;

/// Whose words a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TokenRole {
    /// A document's text, or its end.
    Document = 0,
    /// What the chat template writes around messages.
    Template = 1,
    /// The system's words.
    System = 2,
    /// The user's words.
    User = 3,
    /// The assistant's words.
    Assistant = 4,
    /// A tool's words.
    Tool = 5,
    /// Padding behind the last sample of a row.
    Padding = 6,
}

impl TokenRole {
    pub(crate) fn from_mark(mark: u8) -> Self {
        match mark & !TARGET_BIT {
            1 => Self::Template,
            2 => Self::System,
            3 => Self::User,
            4 => Self::Assistant,
            5 => Self::Tool,
            _ => Self::Document,
        }
    }
}

/// What was counted while a source was prepared; kept in the cache's MANIFEST.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Rows read, bad ones included.
    pub(crate) n_rows: u64,
    pub(crate) n_samples: u64,
    pub(crate) n_tokens: u64,
    /// UTF-8 bytes of the texts.
    pub(crate) n_bytes: u64,
    /// Documents left out because they have no text.
    pub(crate) n_empty: u64,
    /// Rows left out because they were bad.
    pub(crate) n_bad: u64,
    /// The messages of the first bad rows.
    pub(crate) bad: Vec<String>,
    /// Whether a token takes four bytes, else two.
    pub(crate) wide: bool,
    /// Whether places count rows, else lines.
    pub(crate) binary: bool,
    /// Whether the samples are chats, with marks and groups.
    pub(crate) chats: bool,
    /// Rows that `where` left out, among those read.
    #[serde(default)]
    pub(crate) n_left_out: u64,
    /// What the rows are to pairs that are drawn from them; None where none are.
    #[serde(default)]
    pub(crate) pools: Option<PoolCounts>,
    /// Whether each pair says by how much its chosen text is the better one.
    #[serde(default)]
    pub(crate) margins: bool,
    /// Whether the source is one plain text file, which is not cut where documents meet.
    pub(crate) plain_text: bool,
}

/// What the rows of a source are to the pairs that are drawn from them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PoolCounts {
    pub(crate) chosen: u64,
    pub(crate) rejected: u64,
    /// Rows that fit neither side.
    pub(crate) neither: u64,
    /// Rows that fit both.
    pub(crate) both: u64,
}

/// One source's samples.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    tokens: Bytes,
    offsets: Bytes,
    hashes: Bytes,
    places: Bytes,
    marks: Bytes,
    groups: Bytes,
    spans: Bytes,
    sides: Bytes,
    margins: Bytes,
    files: Arc<[Arc<Path>]>,
    pub(crate) summary: Summary,
}

impl Store {
    /// Maps the columns of a verified directory.
    pub(crate) fn open(dir: &Path, summary: Summary, files: &[PathBuf]) -> Result<Self> {
        let map = |name: &str| -> Result<Bytes> {
            Ok(fsio::MappedFile::open(dir.join(name))?.into_bytes())
        };
        let chats = |name: &str| if summary.chats { map(name) } else { Ok(Bytes::new()) };
        let store = Self {
            tokens: map(TOKENS)?,
            offsets: map(OFFSETS)?,
            hashes: map(HASHES)?,
            places: map(PLACES)?,
            marks: chats(MARKS)?,
            groups: chats(GROUPS)?,
            spans: chats(SPANS)?,
            sides: if summary.pools.is_some() { map(SIDES)? } else { Bytes::new() },
            margins: if summary.margins { map(MARGINS)? } else { Bytes::new() },
            files: files.iter().map(|file| Arc::from(file.as_path())).collect(),
            summary,
        };
        store.check(dir)?;
        Ok(store)
    }

    /// The lengths of the columns fit each other, so that no later index can miss.
    fn check(&self, dir: &Path) -> Result<()> {
        let n = self.summary.n_samples as usize;
        let n_tokens = self.summary.n_tokens as usize;
        let width = if self.summary.wide { 4 } else { 2 };
        let mut expected = vec![
            (self.offsets.len(), (n + 1) * 8),
            (self.hashes.len(), n * 8),
            (self.places.len(), n * PLACE_BYTES),
            (self.tokens.len(), n_tokens * width),
        ];
        if self.summary.chats {
            expected.push((self.marks.len(), n_tokens));
            expected.push((self.groups.len(), n * 8));
            expected.push((self.spans.len(), n * SPAN_BYTES));
        }
        if self.summary.pools.is_some() {
            expected.push((self.sides.len(), n));
        }
        if self.summary.margins {
            expected.push((self.margins.len(), n / 2 * 4));
        }
        let ordered = (0..n as u64).all(|sample| self.start(sample) <= self.start(sample + 1));
        let fits = expected.iter().all(|(found, wanted)| found == wanted);
        if fits && ordered && self.start(n as u64) == self.summary.n_tokens {
            return Ok(());
        }
        Err(Error::bad_file(dir, "the columns of this cache do not fit each other"))
    }

    pub(crate) fn n_samples(&self) -> u64 {
        self.summary.n_samples
    }

    /// Where a sample's tokens start in the column; also valid one behind the last sample.
    pub(crate) fn start(&self, sample: u64) -> u64 {
        u64_at(&self.offsets, sample)
    }

    /// Tokens of a sample.
    pub(crate) fn len(&self, sample: u64) -> u64 {
        self.start(sample + 1) - self.start(sample)
    }

    /// The token at a position of the column.
    pub(crate) fn token(&self, at: u64) -> u32 {
        let at = at as usize;
        if self.summary.wide {
            let bytes = self.tokens.get(at * 4..at * 4 + 4).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u32::from_le_bytes)
        } else {
            let bytes = self.tokens.get(at * 2..at * 2 + 2).and_then(|b| b.try_into().ok());
            bytes.map_or(0, |bytes| u32::from(u16::from_le_bytes(bytes)))
        }
    }

    /// The mark of the token at a position of the column: role and target bit. 0 in documents.
    pub(crate) fn mark(&self, at: u64) -> u8 {
        self.marks.get(at as usize).copied().unwrap_or(0)
    }

    /// Where a chat's targets lie.
    pub(crate) fn targets(&self, sample: u64) -> Targets {
        let number = |field: usize| {
            let at = sample as usize * SPAN_BYTES + field * 4;
            let bytes = self.spans.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_le_bytes)
        };
        Targets { first: number(0), last: number(1), n: number(2) }
    }

    /// Which side of a pair a text of a pool is for.
    pub(crate) fn side(&self, sample: u64) -> Side {
        match self.sides.get(sample as usize) {
            Some(1) => Side::Rejected,
            _ => Side::Chosen,
        }
    }

    /// By how much the chosen text of a pair is the better one; 0 where nothing says so.
    pub(crate) fn margin(&self, chosen: u64) -> f32 {
        let at = chosen as usize / 2 * 4;
        let bytes = self.margins.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0.0, f32::from_le_bytes)
    }

    /// The content's hash.
    pub(crate) fn hash(&self, sample: u64) -> u64 {
        u64_at(&self.hashes, sample)
    }

    /// The hash that decides the side of a split.
    pub(crate) fn group(&self, sample: u64) -> u64 {
        if self.summary.chats { u64_at(&self.groups, sample) } else { self.hash(sample) }
    }

    /// Where a sample came from.
    pub(crate) fn place(&self, sample: u64) -> Place {
        let at = sample as usize * PLACE_BYTES;
        let file = self.places.get(at..at + 4).and_then(|b| b.try_into().ok());
        let file = file.map_or(0, u32::from_le_bytes) as usize;
        let number = self.places.get(at + 4..at + 12).and_then(|b| b.try_into().ok());
        let number = number.map_or(0, u64::from_le_bytes);
        let position =
            if self.summary.binary { Position::Row(number) } else { Position::Line(number) };
        let unknown = || Arc::from(Path::new("?"));
        Place { file: self.files.get(file).cloned().unwrap_or_else(unknown), position }
    }
}

/// Where a chat's targets lie among its tokens; all 0 where it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Targets {
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) n: u32,
}

impl Targets {
    /// The first token of a sample is never predicted, so it is never a target.
    pub(crate) fn of(marks: &[u8]) -> Self {
        let mut targets = Self::default();
        for (at, _) in marks.iter().enumerate().skip(1).filter(|(_, mark)| **mark & TARGET_BIT != 0)
        {
            if targets.n == 0 {
                targets.first = at as u32;
            }
            targets.last = at as u32;
            targets.n += 1;
        }
        targets
    }

    pub(crate) fn to_bytes(self) -> [u8; SPAN_BYTES] {
        let mut bytes = [0; SPAN_BYTES];
        for (field, number) in bytes.chunks_exact_mut(4).zip([self.first, self.last, self.n]) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }
}

/// Bytes of a chat in the column of spans.
pub(crate) const SPAN_BYTES: usize = 12;

/// A place: the file's number (4 bytes), the line or row (8 bytes).
pub(crate) const PLACE_BYTES: usize = 12;

fn u64_at(column: &Bytes, index: u64) -> u64 {
    let at = index as usize * 8;
    column.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}
