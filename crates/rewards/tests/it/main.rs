//! Tests of rewards that are computed from text.

mod kinds;
mod numbers;
mod schemas;
mod support;
