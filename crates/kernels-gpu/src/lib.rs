//! Kernels of training operations for GPUs, written in CubeCL: one source for every GPU backend of burn.
//!
//! Functions take and return tensors of burn's GPU backend and have no gradients of their own; `kernels` connects forward
//! and backward. Sums are f32, in an order that depends on shapes alone, so that results repeat to the bit.
#![cfg(feature = "cuda")]

mod launch;
pub mod rms_norm;
