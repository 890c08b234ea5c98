//! Tests of the preference stage: what an answer's probability is, the named losses, the reference that never moves, runs
//! that are cut and resumed.

mod answers;
mod objectives;
mod reference;
mod samples;
mod stage;
mod support;
