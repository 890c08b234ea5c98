//! Rendering of tables, tokens and progress. Progress is printed to stderr; everything else is returned as text.

pub(crate) mod curve;
pub(crate) mod download;
pub(crate) mod episodes;
pub(crate) mod groups;
pub(crate) mod live_line;
pub(crate) mod plot;
pub(crate) mod printable;
pub(crate) mod progress;
pub(crate) mod stderr;
pub(crate) mod table;
pub(crate) mod task_metrics;
pub(crate) mod tasks;
pub(crate) mod tokens;
pub(crate) mod view;
