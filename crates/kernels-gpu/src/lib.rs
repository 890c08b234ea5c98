//! Kernels of training operations for GPUs, written in CubeCL: one source for every GPU backend of burn.
//!
//! Functions take and return tensors of burn's GPU backend and have no gradients of their own; `kernels` connects forward
//! and backward. Values are f32. Sums are f32 in an order that depends on shapes alone, without atomics, so that results
//! repeat to the bit.
//!
//! The documentation of each module states the bytes and operations of its kernels, and the least time in which the
//! memory or the arithmetic of an H100 (3.35 TB/s, 67 TFLOP/s of f32) and an H200 (4.8 TB/s, 67 TFLOP/s) allows them: figures
//! on paper, not measurements.
#![cfg(feature = "gpu")]

pub mod attention;
pub mod embedding;
mod launch;
pub mod layer_norm;
pub mod optimizer;
pub mod rms_norm;
pub mod rope;
pub mod stack;
mod sums;
pub mod swiglu;
pub mod target_rows;
