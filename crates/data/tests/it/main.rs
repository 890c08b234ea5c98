//! Tests of the data crate from outside.

mod cache;
mod formats;
mod packing;
mod support;
