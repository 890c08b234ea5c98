//! Tests of the PPO stage: runs that are cut and resumed, the reference that never moves, who trains what, the figures of
//! answers, the order of episodes.

mod metrics;
mod roles;
mod stage;
mod support;
