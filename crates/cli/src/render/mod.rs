//! How things look: tables, progress, tokens. Prints nothing itself but progress, which goes to stderr.

pub(crate) mod episodes;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod tokens;
