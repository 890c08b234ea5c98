//! Tests of the stage: the divergence by hand, its first loss, micro-batches, what it learns, runs that are cut and resumed.

mod divergence;
mod stage;
mod support;
