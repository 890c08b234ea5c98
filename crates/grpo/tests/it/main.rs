//! Integration tests of the stage on a tiny policy.

mod stage;
mod support;
