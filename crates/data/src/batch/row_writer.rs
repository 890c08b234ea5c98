//! Writes the rows of a batch, sample by sample.
//!
//! Rows are padded and positions counted here only, for training, evaluation and inspection alike.

use crate::batch::Batch;
use crate::cache::TokenRole;

/// Writes rows into a batch.
pub(crate) struct RowWriter<'a> {
    batch: &'a mut Batch,
    roles: Option<&'a mut Vec<TokenRole>>,
    pad: u32,
    /// Positions written in the current row.
    used: usize,
    segment: i32,
    position: u32,
}

impl<'a> RowWriter<'a> {
    pub(crate) fn new(
        batch: &'a mut Batch,
        roles: Option<&'a mut Vec<TokenRole>>,
        pad: u32,
    ) -> Self {
        Self { batch, roles, pad, used: 0, segment: -1, position: 0 }
    }

    /// Free positions in the row.
    pub(crate) fn room(&self) -> usize {
        self.batch.sequence_length - self.used
    }

    /// Adds the margin of the pair in the next two rows.
    pub(crate) fn push_margin(&mut self, margin: f32) {
        self.batch.margins.push(margin);
    }

    /// Adds the label of the answer in the next row.
    pub(crate) fn push_label(&mut self, is_desirable: bool) {
        self.batch.labels.push(is_desirable);
    }

    /// Starts a sample: the next positions are a new segment and count from 0.
    pub(crate) fn start_sample(&mut self, sample: u64) {
        self.batch.samples.push(sample);
        self.segment += 1;
        self.position = 0;
    }

    /// Adds one position: the id that is read and the target, if any.
    pub(crate) fn push(&mut self, id: u32, target: Option<u32>, role: TokenRole) {
        debug_assert!(self.room() > 0, "the row is full");
        self.batch.ids.push(id);
        self.batch.positions.push(self.position);
        self.batch.segments.push(self.segment);
        self.batch.targets.push(target.map_or(-1, |target| target as i32));
        self.batch.n_targets += usize::from(target.is_some());
        if let Some(roles) = &mut self.roles {
            roles.push(role);
        }
        self.position += 1;
        self.used += 1;
    }

    /// Pads the row and ends it.
    pub(crate) fn end_row(&mut self) {
        let room = self.room();
        let end = self.batch.ids.len() + room;
        self.batch.ids.resize(end, self.pad);
        self.batch.positions.resize(end, 0);
        self.batch.segments.resize(end, -1);
        self.batch.targets.resize(end, -1);
        if let Some(roles) = &mut self.roles {
            roles.resize(end, TokenRole::Padding);
        }
        self.batch.sample_starts.push(self.batch.samples.len());
        self.batch.rows += 1;
        (self.used, self.segment, self.position) = (0, -1, 0);
    }
}
