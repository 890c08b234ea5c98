//! What the model sees, row by row, for `temper data inspect`.
//!
//! It deliberately comes from the code that fills batches, with each token's role noted on the way.

use std::ops::Range;

use crate::batch::Batch;
use crate::cache::TokenRole;
use crate::dataset::{Dataset, RowWriter};
use crate::place::Place;

/// One row of a run; a pair has two rows in its batch.
#[derive(Clone, Debug, PartialEq)]
pub struct RowView {
    /// The row's number in the run, from 0.
    pub row: u64,
    /// The epoch that it belongs to.
    pub epoch: u64,
    /// The row as a batch of its own.
    pub batch: Batch,
    /// Whose words each position reads.
    pub roles: Vec<TokenRole>,
    /// The samples in the row.
    pub segments: Vec<Segment>,
}

/// One sample in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// The sample's number.
    pub sample: u64,
    /// Where it came from.
    pub place: Option<Place>,
    /// Its positions in the batch.
    pub range: Range<usize>,
}

impl RowView {
    /// Runs of consecutive positions that have targets: each learns to write one span of text.
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

    /// The ids that a span of positions learns to write.
    pub fn target_ids(&self, span: &Range<usize>) -> Vec<u32> {
        let targets = self.batch.targets.get(span.clone()).unwrap_or_default();
        targets.iter().filter_map(|target| u32::try_from(*target).ok()).collect()
    }
}

impl Dataset {
    /// Row number `row` of the run as the model sees it; None behind the last one.
    pub fn view(&self, row: u64) -> Option<RowView> {
        if row >= self.n_run_rows {
            return None;
        }
        let (epoch, within) = self.locate(row);
        let mut batch = Batch::with_capacity(1, self.options.sequence_length);
        let mut roles = Vec::new();
        let mut writer = RowWriter::new(&mut batch, Some(&mut roles), self.pad);
        self.train.fill(epoch, within, &mut writer);
        let segments = self.segments_of(&batch);
        Some(RowView { row, epoch, batch, roles, segments })
    }

    /// The samples of a batch, row by row.
    fn segments_of(&self, batch: &Batch) -> Vec<Segment> {
        let rows = batch.segments.chunks(batch.sequence_length).zip(batch.sample_starts.windows(2));
        let mut segments = Vec::new();
        for (row, (marks, samples)) in rows.enumerate() {
            let samples = batch.samples.get(samples[0]..samples[1]).unwrap_or_default();
            for (number, sample) in samples.iter().enumerate() {
                let in_segment = |segment: &i32| *segment == number as i32;
                let start =
                    row * batch.sequence_length + marks.iter().position(in_segment).unwrap_or(0);
                let end = start + marks.iter().filter(|segment| in_segment(segment)).count();
                segments.push(Segment {
                    sample: *sample,
                    place: self.place(*sample),
                    range: start..end,
                });
            }
        }
        segments
    }
}
