//! Tests of the stage: its loss by hand, gradients in chunks, micro-batches, what it learns, the student's own answers, saved
//! tokens of the teacher, runs that are cut and resumed, teachers that are refused.

mod gradients;
mod stage;
mod support;
mod top_k;
