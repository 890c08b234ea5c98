//! Every function against plain loops in f64 and against the generic kernels, at many shapes.

// The portable build is a separate package (portable/Cargo.toml).
#[cfg(feature = "portable")]
extern crate kernels_portable as kernels;

mod adamw;
mod attention;
mod blocks;
mod check;
mod each;
mod elementwise;
mod fused_linear;
#[cfg(feature = "gpu")]
mod gpu;
mod head;
mod linear;
mod operations;
mod optimizer;
mod precision;
mod properties;
mod recompute;
mod reference;
mod support;
