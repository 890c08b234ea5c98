//! Foreign files to batches: rows of any format, tokenised once into a checksummed cache, dealt out
//! as a pure function of (seed, step).
//!
//! It deliberately knows no model and no loss, keeps no loader state, and trains no tokenizer.

mod batch;
mod cache;
mod conversations;
mod dataset;
mod error;
mod labelled;
pub mod limits;
mod paths;
mod place;
mod reading;
mod row_problem;
mod rows;
mod source;
mod spec;
mod texts;

pub use batch::{Batch, Share};
pub use cache::{Content, PrepareOptions, Prepared, Progress, TokenRole, cache_key, prepare};
pub use conversations::{Conversations, conversations};
pub use dataset::{
    Counts, CutReason, CutSample, Dataset, DrawnCounts, Holdout, RowView, RunOptions, Segment,
};
pub use error::{Error, Result};
pub use labelled::{Labelled, labelled};
pub use paths::{expand, resolve};
pub use place::{Place, Position};
pub use recipe::SampleKind;
pub use row_problem::RowProblem;
pub use source::{BytesRead, Row, Rows, format_of, read_rows};
pub use spec::SourceSpec;
pub use texts::{texts, texts_key};
