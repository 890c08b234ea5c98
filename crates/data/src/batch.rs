//! A batch on the host: rows of equal length with everything that a model and a loss need.
//!
//! `targets` is already the next token, so nothing downstream shifts ids or compares them with a padding id.

mod mismatched;
mod row_writer;

use std::ops::Range;

use crate::cache::TokenRole;
pub(crate) use row_writer::RowWriter;

/// Share of a step's rows that one replica processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Index of the replica, from 0.
    pub rank: usize,
    /// Number of replicas.
    pub world_size: usize,
}

impl Share {
    /// All rows.
    pub const WHOLE: Self = Self { rank: 0, world_size: 1 };

    /// Range of this share among `n` items. Sizes of shares differ by at most one.
    pub fn of(self, n: usize) -> Range<usize> {
        let world_size = self.world_size.max(1);
        n * self.rank / world_size..n * (self.rank + 1) / world_size
    }
}

/// Rows of one step, concatenated: position `t` of row `r` has index `r * sequence_length + t`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Number of rows.
    pub rows: usize,
    /// Positions of each row.
    pub sequence_length: usize,
    /// Token ids that the model reads, `[rows * sequence_length]`.
    pub ids: Vec<u32>,
    /// Positions within each sample, from 0.
    pub positions: Vec<u32>,
    /// Index of the sample within its row, from 0; -1 for padding.
    pub segments: Vec<i32>,
    /// Token that each position predicts; -1 for none.
    pub targets: Vec<i32>,
    /// Number of targets.
    pub n_targets: usize,
    /// Numbers of the samples, row by row; see `Dataset::location`.
    pub samples: Vec<u64>,
    /// Start of each row's samples in `samples`, then the length of `samples`.
    pub sample_starts: Vec<usize>,
    /// By how much the chosen text of each pair is better; empty without margins.
    pub margins: Vec<f32>,
    /// Whether the answer of each row is desirable; empty without labels.
    pub labels: Vec<bool>,
}

impl Batch {
    /// An empty batch with capacity for `rows` rows.
    pub(crate) fn with_capacity(rows: usize, sequence_length: usize) -> Self {
        let n = rows * sequence_length;
        Self {
            rows: 0,
            sequence_length,
            ids: Vec::with_capacity(n),
            positions: Vec::with_capacity(n),
            segments: Vec::with_capacity(n),
            targets: Vec::with_capacity(n),
            n_targets: 0,
            samples: Vec::new(),
            sample_starts: vec![0],
            margins: Vec::new(),
            labels: Vec::new(),
        }
    }

    /// One text per row, padded at the end with `pad`.
    pub fn of_texts(texts: &[Vec<u32>], pad: u32) -> Self {
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let mut batch = Self::with_capacity(texts.len(), longest);
        let mut writer = RowWriter::new(&mut batch, None, pad);
        for (number, text) in texts.iter().enumerate() {
            writer.start_sample(number as u64);
            for id in text {
                writer.push(*id, None, TokenRole::Document);
            }
            writer.end_row();
        }
        batch
    }

    /// One prompt with its answer per row, padded at the end with `pad`: the tokens of the answer are targets. Rows are cut
    /// at `sequence_length` positions.
    ///
    /// # Panics
    /// If there are fewer answers or samples than prompts.
    pub fn of_answers(
        samples: &[u64],
        prompts: &[Vec<u32>],
        answers: &[Vec<u32>],
        sequence_length: usize,
        pad: u32,
    ) -> Self {
        let mut batch = Self::with_capacity(prompts.len(), sequence_length);
        let mut writer = RowWriter::new(&mut batch, None, pad);
        for (row, prompt) in prompts.iter().enumerate() {
            writer.start_sample(samples[row]);
            let ids = prompt.iter().chain(&answers[row]).take(sequence_length).copied();
            let ids: Vec<u32> = ids.collect();
            for (at, id) in ids.iter().enumerate() {
                let target = if at + 1 < prompt.len() { None } else { ids.get(at + 1).copied() };
                writer.push(*id, target, TokenRole::Document);
            }
            writer.end_row();
        }
        batch
    }

    /// Splits the rows into batches of at most `rows` rows.
    pub fn micro_batches(&self, rows: usize) -> impl Iterator<Item = Self> + '_ {
        let rows = rows.max(1);
        (0..self.rows).step_by(rows).map(move |from| self.slice(from, (from + rows).min(self.rows)))
    }

    /// Splits a share of the rows into batches of at most `rows` rows, each with its index among the micro-batches of the
    /// whole step. Groups of `unit` adjacent rows stay together: 2 for pairs.
    ///
    /// If the shares end at boundaries of micro-batches, these are the micro-batches of an undivided step.
    pub fn micro_batches_of(
        &self,
        share: Share,
        unit: usize,
        rows: usize,
    ) -> impl Iterator<Item = (usize, Self)> + '_ {
        let (unit, rows) = (unit.max(1), rows.max(1));
        let of = |share: Share| {
            let units = share.of(self.rows / unit);
            units.start * unit..units.end * unit
        };
        let before = |rank| of(Share { rank, ..share }).len().div_ceil(rows);
        let before: usize = (0..share.rank).map(before).sum();
        let mine = of(share);
        let starts = mine.clone().step_by(rows).enumerate();
        starts.map(move |(idx, from)| (before + idx, self.slice(from, (from + rows).min(mine.end))))
    }

    /// Number of tokens of each row before its padding, from the segments. No ids are compared.
    pub fn lengths(&self) -> Vec<usize> {
        let rows = self.segments.chunks(self.sequence_length.max(1));
        rows.map(|row| row.iter().filter(|segment| **segment >= 0).count()).collect()
    }

    /// Ids of each row before its padding: the texts of pairs, or prompts.
    pub fn texts(&self) -> Vec<&[u32]> {
        let rows = self.ids.chunks(self.sequence_length.max(1)).zip(self.lengths());
        rows.map(|(row, length)| row.get(..length).unwrap_or_default()).collect()
    }

    /// The same rows without the positions at their ends that are padding in every row.
    #[must_use]
    pub fn trimmed(&self) -> Self {
        let t = self.lengths().into_iter().max().unwrap_or(0).max(1).min(self.sequence_length);
        fn kept<T: Copy>(column: &[T], from: usize, to: usize) -> Vec<T> {
            column.chunks(from.max(1)).flat_map(|row| row.iter().take(to).copied()).collect()
        }
        let from = self.sequence_length;
        Self {
            sequence_length: t,
            ids: kept(&self.ids, from, t),
            positions: kept(&self.positions, from, t),
            segments: kept(&self.segments, from, t),
            targets: kept(&self.targets, from, t),
            ..self.clone()
        }
    }

    /// Rows `from..to` as a batch.
    fn slice(&self, from: usize, to: usize) -> Self {
        let t = self.sequence_length;
        let (a, b) = (from * t, to * t);
        let (first, last) = (self.sample_starts[from], self.sample_starts[to]);
        let targets = self.targets[a..b].to_vec();
        Self {
            rows: to - from,
            sequence_length: t,
            ids: self.ids[a..b].to_vec(),
            positions: self.positions[a..b].to_vec(),
            segments: self.segments[a..b].to_vec(),
            n_targets: targets.iter().filter(|target| **target >= 0).count(),
            targets,
            samples: self.samples[first..last].to_vec(),
            // A pair is two rows and never split.
            margins: self.margins.get(from / 2..to / 2).unwrap_or_default().to_vec(),
            labels: self.labels.get(from..to).unwrap_or_default().to_vec(),
            sample_starts: self.sample_starts[from..=to]
                .iter()
                .map(|start| start - first)
                .collect(),
        }
    }
}
