//! From foreign files to batches: rows of any common format, tokenized once into a checksummed cache, then batched as a
//! pure function of (seed, step). There is no loader state.

mod batch;
mod cache;
mod conversations;
mod dataset;
mod dialogue;
mod error;
mod files;
mod formats;
mod labelled_texts;
pub mod limits;
mod location;
mod paths;
mod row_problem;
mod rows;
mod saved_dataset;
mod source;
mod source_report;
mod source_rows;
mod spec;
mod splits;
mod texts;

pub use batch::{Batch, Share};
pub use cache::{
    Content, PrepareOptions, Prepared, Progress, TokenRole, cache_key, lock_cache, prepare,
    verified_cache,
};
pub use conversations::{Conversations, conversations};
pub use dataset::{
    Dataset, DatasetCounts, DrawnPairCounts, Holdout, InspectedRow, IssueKind, LabelCounts,
    RunOptions, SampleIssue, Segment,
};
pub use dialogue::Dialogue;
pub use error::{Error, Result};
pub use files::{ReadOptions, SourceFiles};
pub use formats::{KNOWN_ENDINGS, format_of};
pub use labelled_texts::{LabelledText, labelled_texts};
pub use location::{Location, Position};
pub use paths::{expand, resolve};
pub use recipe::SampleKind;
pub use row_problem::RowProblem;
pub use rows::{UNREADABLE_COLUMNS, known_roles, target_flags, usual_columns};
pub use source::{BytesRead, Row, RowIter, exact_json, read_rows, read_rows_with};
pub use source_report::{SourceReport, describe_source};
pub use spec::SourceSpec;
pub use texts::{located_texts, text_start, texts, texts_key};
