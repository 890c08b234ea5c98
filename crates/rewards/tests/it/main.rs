//! Tests of rewards that are computed from text.

mod graded;
mod kinds;
mod numbers;
mod schemas;
mod support;
