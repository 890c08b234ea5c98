//! Writes the columns of one source to disk, sample by sample. Only `finish` makes the cache visible.

use std::path::{Path, PathBuf};

use recipe::Format;
use serde_json::{Value, json};

use super::RowCounter;
use crate::cache::store::{
    ANSWER_OFFSETS, ANSWERS, GROUPS, HASHES, LABELS, LOCATIONS, MARGINS, OFFSETS, ROLES,
    SourceSummary, TARGET_SPANS, TOKENS, TargetSpan,
};
use crate::cache::{Content, PrepareOptions};
use crate::error::{Error, Result};
use crate::location::Location;
use crate::rows::Label;
use crate::source::file_format;
use crate::spec::SourceSpec;

/// Values of a finished sample besides its tokens.
pub(super) struct SampleEnd {
    pub(super) location: Location,
    pub(super) hash: u64,
    pub(super) group: u64,
    pub(super) n_bytes: u64,
}

/// The columns of one source under construction.
pub(super) struct Writer {
    dir: fsio::DirWriter,
    tokens: Column,
    offsets: Column,
    hashes: Column,
    locations: Column,
    /// Roles, groups and target spans.
    chats: Option<[Column; 3]>,
    /// Label of each text, if pairs are drawn or answers are labelled.
    labels: Option<Column>,
    /// Margin of each pair, if the recipe names a column for it.
    margins: Option<Column>,
    /// Texts next to prompts, and where those of each prompt end.
    answers: Option<[Column; 2]>,
    files: Vec<PathBuf>,
    scratch: Vec<u8>,
    /// Number of tokens at the end of the last sample.
    ended_at: u64,
    /// Number of bytes in the column of answers.
    answer_bytes: u64,
    /// Whether pairs are drawn from the texts.
    draws_pairs: bool,
    pub(super) summary: SourceSummary,
}

impl Writer {
    pub(super) fn begin(
        dir: &Path,
        spec: &SourceSpec,
        options: &PrepareOptions<'_>,
    ) -> Result<Self> {
        let formats: Result<Vec<Format>> =
            spec.files.iter().map(|file| file_format(file, spec.format)).collect();
        let binary = formats?.iter().any(|f| matches!(f, Format::Parquet | Format::Arrow));
        let chats = !matches!(options.content, Content::Documents);
        let pools = chats && spec.pairs.is_some();
        let mut dir = fsio::DirWriter::begin(dir)?;
        let mut column = |name| Column::create(&mut dir, name);
        let mut offsets = column(OFFSETS)?;
        offsets.write(&0_u64.to_le_bytes())?;
        let (tokens, hashes, locations) = (column(TOKENS)?, column(HASHES)?, column(LOCATIONS)?);
        let chat_columns = if chats {
            Some([column(ROLES)?, column(GROUPS)?, column(TARGET_SPANS)?])
        } else {
            None
        };
        let names_margins = spec.columns.as_ref().is_some_and(|columns| columns.margin.is_some());
        let margins = if chats && names_margins { Some(column(MARGINS)?) } else { None };
        let has_labels = pools || matches!(options.content, Content::Completions(_));
        let labels = if has_labels { Some(column(LABELS)?) } else { None };
        let answers = if spec.answers.is_empty() {
            None
        } else {
            Some([column(ANSWERS)?, column(ANSWER_OFFSETS)?])
        };
        let summary = SourceSummary {
            answers: answers.is_some(),
            wide: options.tokenizer.vocab_size() > 1 << 16,
            binary,
            chats,
            labels: has_labels,
            ..SourceSummary::default()
        };
        Ok(Self {
            dir,
            tokens,
            offsets,
            hashes,
            locations,
            chats: chat_columns,
            labels,
            margins,
            answers,
            files: spec.files.to_vec(),
            scratch: Vec::new(),
            ended_at: 0,
            answer_bytes: 0,
            draws_pairs: pools,
            summary,
        })
    }

    pub(super) fn write_tokens(&mut self, ids: &[u32]) -> Result<()> {
        self.scratch.clear();
        for id in ids {
            if self.summary.wide {
                self.scratch.extend_from_slice(&id.to_le_bytes());
            } else {
                self.scratch.extend_from_slice(&(*id as u16).to_le_bytes());
            }
        }
        self.summary.n_tokens += ids.len() as u64;
        self.tokens.write(&self.scratch)
    }

    /// Writes the roles and the loss mask of a whole chat.
    pub(super) fn write_roles(&mut self, role_bytes: &[u8]) -> Result<()> {
        if let Some([column, _, spans]) = &mut self.chats {
            column.write(role_bytes)?;
            spans.write(&TargetSpan::of(role_bytes).to_bytes())?;
        }
        Ok(())
    }

    /// Writes the label of a text, if texts have labels.
    pub(super) fn write_label(&mut self, label: Label) -> Result<()> {
        self.labels.as_mut().map_or(Ok(()), |column| column.write(&[label as u8]))
    }

    /// Writes the margin of a pair, if the recipe names a column for it.
    pub(super) fn write_margin(&mut self, margin: f32) -> Result<()> {
        self.margins.as_mut().map_or(Ok(()), |column| column.write(&margin.to_le_bytes()))
    }

    /// Writes the texts next to a prompt as a JSON list.
    pub(super) fn write_answers(&mut self, answers: &[Option<String>]) -> Result<()> {
        let Some([texts, ends]) = &mut self.answers else { return Ok(()) };
        let json = json!(answers).to_string();
        texts.write(json.as_bytes())?;
        self.answer_bytes += json.len() as u64;
        ends.write(&self.answer_bytes.to_le_bytes())
    }

    /// Whether the current sample has no token.
    pub(super) fn sample_is_empty(&self) -> bool {
        self.ended_at == self.summary.n_tokens
    }

    pub(super) fn end_sample(&mut self, end: &SampleEnd) -> Result<()> {
        let file = self.files.iter().position(|file| file.as_path() == &*end.location.file);
        self.locations.write(&(file.unwrap_or(0) as u32).to_le_bytes())?;
        self.locations.write(&end.location.position.number().to_le_bytes())?;
        self.offsets.write(&self.summary.n_tokens.to_le_bytes())?;
        self.hashes.write(&end.hash.to_le_bytes())?;
        if let Some([_, groups, _]) = &mut self.chats {
            groups.write(&end.group.to_le_bytes())?;
        }
        self.ended_at = self.summary.n_tokens;
        self.summary.n_samples += 1;
        self.summary.n_bytes += end.n_bytes;
        if self.summary.n_samples > u64::from(u32::MAX) {
            return Err(Error::TooLarge {
                path: end.location.file.to_path_buf(),
                what: "samples of a source",
                value: self.summary.n_samples,
                limit: u64::from(u32::MAX),
            });
        }
        Ok(())
    }

    pub(super) fn finish(mut self, counts: RowCounter, inputs: &Value) -> Result<()> {
        self.summary.n_rows = counts.n_rows;
        self.summary.n_bad = counts.n_bad;
        self.summary.bad = counts.bad;
        self.summary.n_filtered = counts.n_filtered;
        self.summary.n_empty += counts.n_empty;
        self.summary.n_undesirable = counts.n_undesirable;
        self.summary.margins = self.margins.is_some();
        self.summary.pools = self.draws_pairs.then_some(counts.pools);
        let columns = [self.tokens, self.offsets, self.hashes, self.locations];
        let more = self.chats.into_iter().flatten().chain(self.labels).chain(self.margins);
        let more = more.chain(self.answers.into_iter().flatten());
        for column in columns.into_iter().chain(more) {
            column.file.finish()?;
        }
        self.dir.commit(json!({ "inputs": inputs, "summary": self.summary }))?;
        Ok(())
    }
}

/// One file of the cache.
struct Column {
    file: fsio::HashingFile,
}

impl Column {
    fn create(dir: &mut fsio::DirWriter, name: &str) -> Result<Self> {
        Ok(Self { file: dir.create(name)? })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.file.put(bytes)?)
    }
}
