//! Tests of the crate as its callers see it: golden vectors, caching, packing, files.

// Tests say what they skip and how close they came, and write damaged files of their own.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

mod cache;
mod files;
mod golden;
mod init;
mod input;
mod packed_files;
mod packing;
mod scalar_model;
mod support;
mod threads;
