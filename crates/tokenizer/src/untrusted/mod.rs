//! Checks of files that someone else wrote, before and while the libraries below process them.
//!
//! The tokenizers library, its regular-expression engine and the template engine trust their
//! input. A crafted file can make them panic, run exponentially or exhaust memory; the checks here
//! turn that into errors.

pub(crate) mod bounded;
pub(crate) mod json_limits;
pub(crate) mod panics;
mod post_processor;
mod regex;
pub(crate) mod template_rewrite;
pub(crate) mod template_values;
pub(crate) mod tokenizer_json;
