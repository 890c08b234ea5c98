//! An empty crate whose dependencies unify the features of third-party crates.
//!
//! Every crate that builds burn depends on it, so that `cargo test -p loss` resolves the same features as
//! `cargo test --workspace` and compiles no dependency again. `tests/ci/workspace_hack.sh` generates its manifest.
