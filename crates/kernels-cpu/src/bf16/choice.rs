//! Which way to multiply in bf16: the faster one on this processor, or the one that a run began with.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::multiply_by;
use crate::matrix::{Matrix, MatrixMut, Write};

/// A way to multiply values rounded to bf16. Each has its own last bits.
///
/// Some processors execute `vdpbf16ps`, which multiplies twice as many values, as often as multiplications in f32; others a
/// quarter as often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bf16Products {
    /// Pairs of values, by the instruction `vdpbf16ps`.
    Pairs,
    /// Rounded copies in f32, by the products for f32.
    Rounded,
}

impl Bf16Products {
    /// All ways.
    pub const ALL: [Self; 2] = [Self::Pairs, Self::Rounded];

    /// Whether this processor has the instructions.
    pub fn is_supported(self) -> bool {
        match self {
            #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
            Self::Pairs => {
                std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                    && std::arch::is_x86_feature_detected!("avx512bf16")
            }
            #[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
            Self::Pairs => false,
            Self::Rounded => true,
        }
    }

    /// The way with a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|products| products.name() == name)
    }

    /// The name in a run's record.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pairs => "pairs",
            Self::Rounded => "rounded",
        }
    }
}

/// The products of this process: those that were set, or the faster ones, measured at the first call (about 3 ms).
pub fn bf16_products() -> Bf16Products {
    CHOICE.get()
}

/// Sets the products of this process. Returns false, and changes nothing, if the processor lacks the instructions.
pub fn set_bf16_products(products: Bf16Products) -> bool {
    CHOICE.set(products)
}

static CHOICE: Choice = Choice::new();

#[derive(Debug)]
struct Choice(AtomicU8);

impl Choice {
    const NONE: u8 = u8::MAX;

    const fn new() -> Self {
        Self(AtomicU8::new(Self::NONE))
    }

    fn get(&self) -> Bf16Products {
        let chosen = self.0.load(Ordering::Relaxed);
        if let Some(products) = Bf16Products::ALL.get(usize::from(chosen)) {
            return *products;
        }
        // Two threads may measure at the same time; the first result stays.
        let found = fastest() as u8;
        let (order, none) = (Ordering::Relaxed, Self::NONE);
        let first = self.0.compare_exchange(none, found, order, order).err().unwrap_or(found);
        Bf16Products::ALL[usize::from(first)]
    }

    fn set(&self, products: Bf16Products) -> bool {
        let is_supported = products.is_supported();
        if is_supported {
            self.0.store(products as u8, Ordering::Relaxed);
        }
        is_supported
    }
}

fn fastest() -> Bf16Products {
    if Bf16Products::Pairs.is_supported() && pairs_are_faster() {
        Bf16Products::Pairs
    } else {
        Bf16Products::Rounded
    }
}

/// Whether a product in pairs takes less time than one of the same size in f32, on one thread.
fn pairs_are_faster() -> bool {
    /// The shortest time of each counts, so that a program that interrupts some of them does not matter.
    const REPETITIONS: usize = 8;
    const ROWS: usize = 112;
    const COLUMNS: usize = 128;
    const INNER: usize = 512;
    let (a, b) = (vec![0.5; ROWS * INNER], vec![0.5; INNER * COLUMNS]);
    let mut out = vec![0.0; ROWS * COLUMNS];
    let mut best = [Duration::MAX; 2];
    for _ in 0..REPETITIONS {
        for (best, products) in best.iter_mut().zip(Bf16Products::ALL) {
            let start = Instant::now();
            let (a, b) = (Matrix::new(&a, ROWS, INNER), Matrix::new(&b, INNER, COLUMNS));
            let out = MatrixMut::new(&mut out, ROWS, COLUMNS);
            multiply_by(products, out, (a, b), Write::Over, 1.0, false);
            *best = start.elapsed().min(*best);
        }
    }
    best[0] < best[1]
}

#[cfg(test)]
mod tests {
    use super::{Bf16Products, Choice};

    #[test]
    fn what_is_set_is_used_and_else_what_is_measured() {
        let choice = Choice::new();
        assert!(choice.get().is_supported());
        for products in Bf16Products::ALL {
            assert_eq!(choice.set(products), products.is_supported());
            assert!(choice.get() == products || !products.is_supported());
        }
    }
}
