//! Tests of the PPO stage: interrupted and resumed runs, the frozen reference, trained and frozen models, metrics of answers,
//! the order of episodes.

mod metrics;
mod roles;
mod stage;
mod stated;
mod support;
