//! In what numbers matrix products are computed.
//!
//! It deliberately concerns products alone: weights, moments, norms, softmax, losses and sums are f32
//! whatever is set here.

use std::cell::Cell;
use std::sync::atomic::{AtomicU8, Ordering};

/// The numbers that enter the matrix products of layers and of the head; their sums are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to ten bits of mantissa, as tensor cores take f32.
    Tf32,
    /// Rounded to bf16, eight bits of mantissa.
    Bf16,
}

impl Precision {
    const ALL: [Self; 3] = [Self::F32, Self::Tf32, Self::Bf16];

    /// As recipes write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }

    /// The precision of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|precision| precision.name() == name)
    }
}

static PRECISION: AtomicU8 = AtomicU8::new(0);

thread_local! {
    static HERE: Cell<Option<Precision>> = const { Cell::new(None) };
}

/// Sets the precision of products for the whole process.
pub fn set_precision(precision: Precision) {
    PRECISION.store(precision as u8, Ordering::Relaxed);
}

/// The precision in which an operation that is called now multiplies, there and in its backward pass.
pub fn precision() -> Precision {
    let set = || Precision::ALL[usize::from(PRECISION.load(Ordering::Relaxed))];
    HERE.get().unwrap_or_else(set)
}

/// Calls `run` with another precision for operations of this thread.
pub fn with_precision<R>(precision: Precision, run: impl FnOnce() -> R) -> R {
    let before = HERE.replace(Some(precision));
    let out = run();
    HERE.set(before);
    out
}

/// Whether products of that precision are faster than f32 on this machine's processor.
pub fn is_fast_on_cpu(precision: Precision) -> bool {
    precision == Precision::Bf16 && crate::bf16::is_supported()
}
