//! A prepared source, memory-mapped: tokens by sample, with hashes and locations.
//!
//! The columns are plain little-endian arrays, one file each, rather than Arrow IPC: reading a token is one
//! bounds-checked load at a computed offset, of 2 bytes where the vocabulary allows it. There are no record batches to
//! search and no framing to trust, and the directory's MANIFEST checks the bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::location::{Location, Position};
use crate::rows::Label;

pub(crate) const TOKENS: &str = "tokens.bin";
pub(crate) const OFFSETS: &str = "offsets.bin";
pub(crate) const HASHES: &str = "hashes.bin";
pub(crate) const LOCATIONS: &str = "locations.bin";
/// Chats only: one byte per token, its role and the [`LOSS_MASK_BIT`].
pub(crate) const ROLES: &str = "roles.bin";
/// Chats only: the hash that decides the split of a sample.
pub(crate) const GROUPS: &str = "groups.bin";
/// Chats only: first target, last target and number of targets, 4 bytes each.
pub(crate) const TARGET_SPANS: &str = "target_spans.bin";
/// Drawn pairs and labelled answers only: one byte per text, its [`Label`].
pub(crate) const LABELS: &str = "labels.bin";

/// Pairs only, if the recipe names a column of margins: one number per pair, 4 bytes.
pub(crate) const MARGINS: &str = "margins.bin";

/// Prompts only, if the stage has rewards with answers: a JSON list of texts per prompt.
pub(crate) const ANSWERS: &str = "answers.bin";
/// End of each prompt's list in the column of answers, 8 bytes.
pub(crate) const ANSWER_OFFSETS: &str = "answer_offsets.bin";

/// Bit of a role byte that is set where the token is a target.
pub(crate) const LOSS_MASK_BIT: u8 = 0x80;

/// Role of the message that a token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TokenRole {
    /// Text of a document, or its end-of-text token.
    Document = 0,
    /// Text that the chat template writes around messages.
    Template = 1,
    /// Text of the system message.
    System = 2,
    /// Text of a user message.
    User = 3,
    /// Text of an assistant message.
    Assistant = 4,
    /// Text of a tool message.
    Tool = 5,
    /// Padding after the last sample of a row.
    Padding = 6,
}

impl TokenRole {
    fn from_byte(byte: u8) -> Self {
        match byte & !LOSS_MASK_BIT {
            1 => Self::Template,
            2 => Self::System,
            3 => Self::User,
            4 => Self::Assistant,
            5 => Self::Tool,
            _ => Self::Document,
        }
    }
}

/// Counts of a prepared source, stored in the cache's MANIFEST.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceSummary {
    /// Rows read, bad ones included.
    pub(crate) n_rows: u64,
    pub(crate) n_samples: u64,
    pub(crate) n_tokens: u64,
    /// UTF-8 bytes of the texts.
    pub(crate) n_bytes: u64,
    /// Documents or texts dropped because they are empty.
    pub(crate) n_empty: u64,
    /// Bad rows that were skipped.
    pub(crate) n_bad: u64,
    /// Messages of the first bad rows.
    pub(crate) bad: Vec<String>,
    /// Whether a token takes four bytes instead of two.
    pub(crate) wide: bool,
    /// Whether locations count rows instead of lines.
    pub(crate) binary: bool,
    /// Whether the samples are chats, with columns for roles, groups and target spans.
    pub(crate) chats: bool,
    /// Rows that `where` removed, among those read.
    pub(crate) n_filtered: u64,
    /// Number of `NaN` and `Infinity` in JSON files, read as null.
    #[serde(default)]
    pub(crate) n_not_finite: u64,
    /// Rows whose label says that the completion is not desirable, which are not read.
    #[serde(default)]
    pub(crate) n_undesirable: u64,
    /// Pool sizes of a source whose pairs are drawn; `None` for other sources.
    pub(crate) pools: Option<PoolCounts>,
    /// Whether each pair has a margin.
    pub(crate) margins: bool,
    /// Whether the source is plain text, read as one document per file.
    pub(crate) plain_text: bool,
    /// Whether each text has a label. Caches of older versions have labels wherever they have `pools`.
    #[serde(default)]
    pub(crate) labels: bool,
    /// Whether texts are stored next to the prompts.
    #[serde(default)]
    pub(crate) answers: bool,
}

impl SourceSummary {
    fn has_labels(&self) -> bool {
        self.labels || self.pools.is_some()
    }
}

/// Number of rows of a source by pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PoolCounts {
    pub(crate) chosen: u64,
    pub(crate) rejected: u64,
    /// Rows that match neither label.
    pub(crate) neither: u64,
    /// Rows that match both labels.
    pub(crate) both: u64,
}

/// Samples of one source.
#[derive(Clone, Debug)]
pub(crate) struct TokenStore {
    tokens: Bytes,
    offsets: Bytes,
    hashes: Bytes,
    locations: Bytes,
    roles: Bytes,
    groups: Bytes,
    target_spans: Bytes,
    labels: Bytes,
    margins: Bytes,
    answers: Bytes,
    answer_offsets: Bytes,
    files: Arc<[Arc<Path>]>,
    pub(crate) summary: SourceSummary,
}

impl TokenStore {
    /// Maps the columns of a verified directory.
    pub(crate) fn open(dir: &Path, summary: SourceSummary, files: &[PathBuf]) -> Result<Self> {
        let map = |name: &str| -> Result<Bytes> {
            Ok(fsio::MappedFile::open(dir.join(name))?.into_bytes())
        };
        let chats = |name: &str| if summary.chats { map(name) } else { Ok(Bytes::new()) };
        let store = Self {
            tokens: map(TOKENS)?,
            offsets: map(OFFSETS)?,
            hashes: map(HASHES)?,
            locations: map(LOCATIONS)?,
            roles: chats(ROLES)?,
            groups: chats(GROUPS)?,
            target_spans: chats(TARGET_SPANS)?,
            labels: if summary.has_labels() { map(LABELS)? } else { Bytes::new() },
            margins: if summary.margins { map(MARGINS)? } else { Bytes::new() },
            answers: if summary.answers { map(ANSWERS)? } else { Bytes::new() },
            answer_offsets: if summary.answers { map(ANSWER_OFFSETS)? } else { Bytes::new() },
            files: files.iter().map(|file| Arc::from(file.as_path())).collect(),
            summary,
        };
        store.check(dir)?;
        Ok(store)
    }

    /// Checks that the lengths of the columns agree, so that no later index is out of range.
    fn check(&self, dir: &Path) -> Result<()> {
        let n = self.summary.n_samples as usize;
        let n_tokens = self.summary.n_tokens as usize;
        let width = if self.summary.wide { 4 } else { 2 };
        let mut expected = vec![
            (self.offsets.len(), (n + 1) * 8),
            (self.hashes.len(), n * 8),
            (self.locations.len(), n * LOCATION_BYTES),
            (self.tokens.len(), n_tokens * width),
        ];
        if self.summary.chats {
            expected.push((self.roles.len(), n_tokens));
            expected.push((self.groups.len(), n * 8));
            expected.push((self.target_spans.len(), n * SPAN_BYTES));
        }
        if self.summary.has_labels() {
            expected.push((self.labels.len(), n));
        }
        if self.summary.margins {
            expected.push((self.margins.len(), n / 2 * 4));
        }
        if self.summary.answers {
            expected.push((self.answer_offsets.len(), n * 8));
            let end = n.checked_sub(1).map_or(0, |last| u64_at(&self.answer_offsets, last as u64));
            expected.push((self.answers.len(), end as usize));
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

    /// Start of a sample in the token column; also valid one past the last sample.
    pub(crate) fn start(&self, sample: u64) -> u64 {
        u64_at(&self.offsets, sample)
    }

    /// Number of tokens of a sample.
    pub(crate) fn len(&self, sample: u64) -> u64 {
        self.start(sample + 1) - self.start(sample)
    }

    /// Token at a position of the column.
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

    /// Role of the token at a position of the column.
    pub(crate) fn role(&self, at: u64) -> TokenRole {
        TokenRole::from_byte(self.role_byte(at))
    }

    /// Whether the token at a position of the column is a target. Always false in documents.
    pub(crate) fn loss_mask(&self, at: u64) -> bool {
        self.role_byte(at) & LOSS_MASK_BIT != 0
    }

    fn role_byte(&self, at: u64) -> u8 {
        self.roles.get(at as usize).copied().unwrap_or(0)
    }

    /// Range of a chat's targets.
    pub(crate) fn target_span(&self, sample: u64) -> TargetSpan {
        let number = |field: usize| {
            let at = sample as usize * SPAN_BYTES + field * 4;
            let bytes = self.target_spans.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_le_bytes)
        };
        TargetSpan { first: number(0), last: number(1), n: number(2) }
    }

    /// Label of a text that pairs are drawn from, or of an answer.
    pub(crate) fn label(&self, sample: u64) -> Label {
        match self.labels.get(sample as usize) {
            Some(1) => Label::Rejected,
            _ => Label::Chosen,
        }
    }

    /// By how much the chosen text of a pair is better; 0 without a column of margins.
    pub(crate) fn margin(&self, chosen: u64) -> f32 {
        let at = chosen as usize / 2 * 4;
        let bytes = self.margins.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0.0, f32::from_le_bytes)
    }

    /// Texts next to a prompt; empty without such a column.
    pub(crate) fn answers(&self, sample: u64) -> Vec<Option<String>> {
        let end = u64_at(&self.answer_offsets, sample) as usize;
        let start = sample.checked_sub(1).map_or(0, |before| u64_at(&self.answer_offsets, before));
        let json = self.answers.get(start as usize..end).unwrap_or_default();
        serde_json::from_slice(json).unwrap_or_default()
    }

    /// Hash of a sample's content.
    pub(crate) fn hash(&self, sample: u64) -> u64 {
        u64_at(&self.hashes, sample)
    }

    /// Hash that decides the split of a sample.
    pub(crate) fn group(&self, sample: u64) -> u64 {
        if self.summary.chats { u64_at(&self.groups, sample) } else { self.hash(sample) }
    }

    /// Location of the row that a sample was built from.
    pub(crate) fn location(&self, sample: u64) -> Location {
        let at = sample as usize * LOCATION_BYTES;
        let file = self.locations.get(at..at + 4).and_then(|b| b.try_into().ok());
        let file = file.map_or(0, u32::from_le_bytes) as usize;
        let number = self.locations.get(at + 4..at + 12).and_then(|b| b.try_into().ok());
        let number = number.map_or(0, u64::from_le_bytes);
        let position =
            if self.summary.binary { Position::Row(number) } else { Position::Line(number) };
        let unknown = || Arc::from(Path::new("?"));
        Location { file: self.files.get(file).cloned().unwrap_or_else(unknown), position }
    }
}

/// Range of a chat's targets among its tokens; all 0 if it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TargetSpan {
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) n: u32,
}

impl TargetSpan {
    /// The first token of a sample is never predicted, so it is never a target.
    pub(crate) fn of(role_bytes: &[u8]) -> Self {
        let mut targets = Self::default();
        let is_target = |byte: u8| byte & LOSS_MASK_BIT != 0;
        for (at, _) in role_bytes.iter().enumerate().skip(1).filter(|(_, byte)| is_target(**byte)) {
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

/// Bytes of a chat in the column of target spans.
pub(crate) const SPAN_BYTES: usize = 12;

/// Bytes of a location: the number of the file (4), the line or row (8).
pub(crate) const LOCATION_BYTES: usize = 12;

fn u64_at(column: &Bytes, index: u64) -> u64 {
    let at = index as usize * 8;
    column.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}
