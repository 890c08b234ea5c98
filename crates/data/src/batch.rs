//! A batch on the host: rows of equal length, everything that a model and a loss need to know.
//!
//! It deliberately holds no tensors and makes no copies in shifted form: `targets` is already the
//! next token, and nothing downstream compares an id with a padding id.

mod row_writer;

use std::ops::Range;

use crate::cache::TokenRole;
pub(crate) use row_writer::RowWriter;

/// One of several shares of a step's rows: that of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which of them, from 0.
    pub rank: usize,
    /// How many there are.
    pub world_size: usize,
}

impl Share {
    /// Everything.
    pub const WHOLE: Self = Self { rank: 0, world_size: 1 };

    /// Which of `n` things are its own: neighbours, at most one more than another share has.
    pub fn of(self, n: usize) -> Range<usize> {
        let world_size = self.world_size.max(1);
        n * self.rank / world_size..n * (self.rank + 1) / world_size
    }
}

/// Rows of one step, one after the other: position `t` of row `r` is at `r * sequence_length + t`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Rows in this batch.
    pub rows: usize,
    /// Positions of each row.
    pub sequence_length: usize,
    /// What the model reads.
    pub ids: Vec<u32>,
    /// Positions within the sample, from 0 at each border.
    pub positions: Vec<u32>,
    /// Number of the sample within its row, from 0; -1 behind the last sample.
    pub segments: Vec<i32>,
    /// The token that each position must predict; -1 for none.
    pub targets: Vec<i32>,
    /// How many targets there are.
    pub n_targets: usize,
    /// The samples inside, row by row; `Dataset::place` says where each came from.
    pub samples: Vec<u64>,
    /// Where each row's samples begin in `samples`, and behind the last row their number.
    pub sample_starts: Vec<usize>,
    /// By how much the chosen text of each pair is the better one; empty where no row says so.
    pub margins: Vec<f32>,
}

impl Batch {
    /// An empty batch with room for some rows.
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
        }
    }

    /// One text a row, each from its first token to its last, filled up with `pad` behind.
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

    /// The same rows in batches of at most `rows` rows.
    pub fn micro_batches(&self, rows: usize) -> impl Iterator<Item = Self> + '_ {
        let rows = rows.max(1);
        (0..self.rows).step_by(rows).map(move |from| self.slice(from, (from + rows).min(self.rows)))
    }

    /// A share of the rows in batches of at most `rows` rows, each with its number among those of the whole step, share
    /// after share. `unit` rows that follow each other stay together: 2 for pairs.
    ///
    /// Where shares end as micro-batches do, these are the micro-batches of the whole.
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

    /// Tokens of each row in front of its padding: where the last one stands is known by counting,
    /// never by comparing ids.
    pub fn lengths(&self) -> Vec<usize> {
        let rows = self.segments.chunks(self.sequence_length.max(1));
        rows.map(|row| row.iter().filter(|segment| **segment >= 0).count()).collect()
    }

    /// Each row's ids in front of its padding, by length: the texts of pairs, or prompts to go on from.
    pub fn texts(&self) -> Vec<&[u32]> {
        let rows = self.ids.chunks(self.sequence_length.max(1)).zip(self.lengths());
        rows.map(|(row, length)| row.get(..length).unwrap_or_default()).collect()
    }

    /// The same rows without the positions at their ends that are padding in all of them.
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

    /// Rows `from..to` as a batch of their own.
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
            // A pair is two rows and never divided.
            margins: self.margins.get(from / 2..to / 2).unwrap_or_default().to_vec(),
            sample_starts: self.sample_starts[from..=to]
                .iter()
                .map(|start| start - first)
                .collect(),
        }
    }
}
