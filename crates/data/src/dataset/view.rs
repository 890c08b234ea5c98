//! What the model sees, row by row, for `temper data inspect`.
//!
//! It deliberately comes from the code that fills batches, with each token's role noted on the way.

use std::ops::Range;

use crate::batch::Batch;
use crate::cache::TokenRole;
use crate::dataset::{Dataset, RowWriter};
use crate::place::Place;

/// One row of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RowView {
    /// The row's number in the run, from 0.
    pub row: u64,
    /// The epoch that it belongs to.
    pub epoch: u64,
    /// The row as a batch of one.
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
    /// Its positions in the row.
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
        let segments = batch.samples.iter().enumerate().map(|(number, sample)| {
            let in_segment = |segment: &i32| *segment == number as i32;
            let start = batch.segments.iter().position(in_segment).unwrap_or(0);
            let end = start + batch.segments.iter().filter(|segment| in_segment(segment)).count();
            Segment { sample: *sample, place: self.place(*sample), range: start..end }
        });
        let segments = segments.collect();
        Some(RowView { row, epoch, batch, roles, segments })
    }
}
