//! Samples that a dataset truncates or drops, and why.

use crate::dataset::Dataset;
use crate::location::Location;

/// Why a sample was truncated or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssueKind {
    /// Its end was cut off, with some of its targets.
    Truncated,
    /// It is longer than a row and the recipe drops such samples.
    TooLong,
    /// It has no target, or none in the positions that fit into a row.
    NoTargets,
    /// Both texts of a pair have the same tokens, in full or after truncation.
    IdenticalTexts,
    /// The answers of a pair follow different prompts, so that their probabilities cannot be compared.
    DifferentPrompts,
}

/// A sample that was truncated or dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleIssue {
    /// Its number, as in `Batch::samples`.
    pub sample: u64,
    /// Location of its row.
    pub location: Option<Location>,
    /// Number of its tokens before truncation.
    pub n_tokens: u64,
    /// Why it was truncated or dropped.
    pub kind: IssueKind,
}

impl Dataset {
    /// The samples that were truncated or dropped, for `--list-cut`.
    pub fn sample_issues(&self) -> impl Iterator<Item = SampleIssue> + '_ {
        self.issues.iter().map(|&(sample, kind)| SampleIssue {
            sample,
            location: self.location(sample),
            n_tokens: self.sample_tokens(sample),
            kind,
        })
    }

    /// Number of tokens of each sample of all sources, before truncation.
    pub fn sample_lengths(&self) -> Vec<u64> {
        (0..self.n_source_samples()).map(|sample| self.sample_tokens(sample)).collect()
    }

    /// Number of tokens of a sample, before truncation.
    pub(super) fn sample_tokens(&self, sample: u64) -> u64 {
        let after = self.sources.partition_point(|source| source.first_sample <= sample);
        let source = after.checked_sub(1).and_then(|at| self.sources.get(at));
        source.map_or(0, |source| source.store.len(sample - source.first_sample))
    }
}
