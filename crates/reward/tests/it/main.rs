//! Tests of the reward stage: scores do not depend on padding, the loss of equal scores, the margin and the centring.

mod loss;
mod padding;
mod start;
mod support;
