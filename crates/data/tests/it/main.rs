//! Tests of the data crate from outside.

mod cache;
mod formats;
mod hostile;
mod layouts;
mod packing;
mod support;
