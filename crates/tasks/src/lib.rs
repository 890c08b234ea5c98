//! Evaluation tasks: TOML files with the prompt of a row of data, the kind of answer, and the metrics of answers. Prompts, few-shot examples and metrics are those of lm-evaluation-harness 0.4.
//!
//! A [`Task`] turns rows into [`Item`]s with [`Request`]s, another crate answers them with a model, and [`Task::score`] and
//! [`summarize`] compute the metrics. Nothing here runs a model or opens a connection.

mod builtin;
mod choices;
mod contamination;
mod context;
mod data_files;
mod definition;
mod error;
mod exact_match;
mod few_shot;
mod filters;
mod functions;
mod instructions;
mod item;
mod kind;
mod metrics;
mod pairs;
mod pattern;
mod python_random;
mod python_text;
mod summary;
mod task;
mod template;

pub use builtin::builtin_names;
pub use contamination::{Contamination, Overlap, RowTexts, texts_of};
pub use context::{Chat, Turn};
pub use error::{Error, Result};
pub use instructions::Instructions;
pub use item::{Gold, Item, Request, Response, items_hash};
pub use kind::Generation;
pub use metrics::{MetricName, RowScore, RowValue};
pub use python_text::trim_end as python_trim_end;
pub use summary::{Estimate, summarize, wilson_interval};
pub use task::{Task, TaskOptions};
