//! Integration tests: what rollouts are worth, and what is learned from them.

mod learning;
mod scoring;
mod support;
mod together;
