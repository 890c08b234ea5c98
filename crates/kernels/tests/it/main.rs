//! Every function against plain loops in f64, and what must not depend on shapes or chunks.

// The portable build is a package of its own (portable/Cargo.toml).
#[cfg(feature = "portable")]
extern crate kernels_portable as kernels;

mod adamw;
mod attention;
mod check;
mod each;
mod elementwise;
mod fused_linear;
mod head;
mod linear;
mod operations;
mod optimizer;
mod precision;
mod properties;
mod recompute;
mod reference;
mod support;
