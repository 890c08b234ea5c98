//! Tests of the crate as its callers see it: golden vectors, caching, packing, files.

mod cache;
mod files;
mod golden;
mod init;
mod packing;
mod support;
