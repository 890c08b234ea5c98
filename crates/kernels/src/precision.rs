//! The precision of matrix products: set for the process, or for a part of a thread's work.
//!
//! It concerns products only: weights, moments, norms, softmax, losses and sums are f32 in every precision. The kernels of
//! products on a GPU may be timed or not ([`set_deterministic`]).

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

pub use kernels_cpu::{Bf16Products, Precision, bf16_products, set_bf16_products};

static PRECISION: AtomicU8 = AtomicU8::new(0);

thread_local! {
    static HERE: Cell<Option<Precision>> = const { Cell::new(None) };
}

/// Sets the precision of products for the whole process.
pub fn set_precision(precision: Precision) {
    PRECISION.store(precision as u8, Ordering::Relaxed);
}

/// The precision of the products of an operation that is called now, forward and backward.
pub fn precision() -> Precision {
    let set = || Precision::ALL[usize::from(PRECISION.load(Ordering::Relaxed))];
    HERE.get().unwrap_or_else(set)
}

static DETERMINISTIC: AtomicBool = AtomicBool::new(false);

/// Selects the kernels of products on a GPU by their shapes, for the whole process, instead of taking those that are fastest
/// when this process first needs them. On the CPU they depend on shapes alone in any case.
pub fn set_deterministic(deterministic: bool) {
    DETERMINISTIC.store(deterministic, Ordering::Relaxed);
}

/// Whether the kernels of products depend on shapes alone.
pub(crate) fn is_deterministic() -> bool {
    DETERMINISTIC.load(Ordering::Relaxed)
}

/// Calls `run` with another precision for this thread's operations.
pub fn with_precision<R>(precision: Precision, run: impl FnOnce() -> R) -> R {
    let before = HERE.replace(Some(precision));
    let out = run();
    HERE.set(before);
    out
}

/// Whether this machine's processor multiplies faster in that precision than in f32.
pub fn is_fast_on_cpu(precision: Precision) -> bool {
    precision == Precision::Bf16 && bf16_products() == Bf16Products::Pairs
}
