//! Integration tests: what rollouts are worth, and what is learned from them.

mod groups;
mod learning;
mod scoring;
mod support;
mod together;
