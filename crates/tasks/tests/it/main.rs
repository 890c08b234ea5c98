//! Tests of prompts and metrics against lm-evaluation-harness.

mod builtin;
mod golden;
mod mistakes;
