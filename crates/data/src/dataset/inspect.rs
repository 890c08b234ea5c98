//! Rows as the model reads them, for `temper data inspect`: written by the code that fills batches, with each token's
//! role.

use std::ops::Range;

use crate::batch::{Batch, RowWriter};
use crate::cache::TokenRole;
use crate::dataset::Dataset;
use crate::location::Location;

/// One row of a run. A pair has two rows in its batch.
#[derive(Clone, Debug, PartialEq)]
pub struct InspectedRow {
    /// Number of the row in the run, from 0.
    pub row: u64,
    /// Epoch of the row.
    pub epoch: u64,
    /// Batch that contains only this row.
    pub batch: Batch,
    /// Role of the token at each position.
    pub roles: Vec<TokenRole>,
    /// Samples in the row.
    pub segments: Vec<Segment>,
}

/// One sample in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Number of the sample.
    pub sample: u64,
    /// Location of the sample's row in its file.
    pub location: Option<Location>,
    /// Positions of the sample in the batch.
    pub range: Range<usize>,
}

impl InspectedRow {
    /// Ranges of consecutive positions that have targets.
    pub fn target_spans(&self) -> Vec<Range<usize>> {
        let mut spans: Vec<Range<usize>> = Vec::new();
        for (at, target) in self.batch.targets.iter().enumerate() {
            if *target < 0 {
                continue;
            }
            let segment = self.batch.segments.get(at);
            match spans.last_mut() {
                Some(span) if span.end == at && self.batch.segments.get(at - 1) == segment => {
                    span.end = at + 1;
                }
                _ => spans.push(at..at + 1),
            }
        }
        spans
    }

    /// Target ids of a range of positions.
    pub fn target_ids(&self, span: &Range<usize>) -> Vec<u32> {
        let targets = self.batch.targets.get(span.clone()).unwrap_or_default();
        targets.iter().filter_map(|target| u32::try_from(*target).ok()).collect()
    }
}

impl Dataset {
    /// Row `row` of the run as the model reads it. `None` after the last row.
    pub fn inspect_row(&self, row: u64) -> Option<InspectedRow> {
        if row >= self.n_run_rows {
            return None;
        }
        let (epoch, within) = self.locate(row);
        let mut batch = Batch::with_capacity(1, self.options.sequence_length);
        let mut roles = Vec::new();
        let mut writer = RowWriter::new(&mut batch, Some(&mut roles), self.pad);
        self.train.fill(epoch, within, &mut writer);
        let segments = self.segments_of(&batch);
        Some(InspectedRow { row, epoch, batch, roles, segments })
    }

    /// Samples of a batch, row by row.
    fn segments_of(&self, batch: &Batch) -> Vec<Segment> {
        let rows = batch.segments.chunks(batch.sequence_length).zip(batch.sample_starts.windows(2));
        let mut segments = Vec::new();
        for (row, (row_segments, samples)) in rows.enumerate() {
            let samples = batch.samples.get(samples[0]..samples[1]).unwrap_or_default();
            for (number, sample) in samples.iter().enumerate() {
                let in_segment = |segment: &i32| *segment == number as i32;
                let start = row * batch.sequence_length
                    + row_segments.iter().position(in_segment).unwrap_or(0);
                let end = start + row_segments.iter().filter(|segment| in_segment(segment)).count();
                segments.push(Segment {
                    sample: *sample,
                    location: self.location(*sample),
                    range: start..end,
                });
            }
        }
        segments
    }
}
