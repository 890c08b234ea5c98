//! Comparing values with a reference, by the tolerances that golden vectors come with.
//!
//! It deliberately gives no single number for "close": a tolerance is absolute plus a share of the
//! reference's largest value.

/// How far values may lie from their reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// In any case.
    pub absolute: f64,
    /// Times the largest magnitude in the reference.
    pub of_largest: f64,
}

impl Tolerance {
    /// Logits and hidden states against the reference implementation.
    pub const LOGITS: Self = Self { absolute: 1e-5, of_largest: 3e-6 };
    /// Each gradient tensor against the reference implementation.
    pub const GRADIENTS: Self = Self { absolute: 1e-6, of_largest: 3e-6 };

    /// An absolute bound alone.
    pub const fn absolute(absolute: f64) -> Self {
        Self { absolute, of_largest: 0.0 }
    }
}

/// The largest difference between two lists and what of it is allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The largest |got - want|; infinite if one side is not a number.
    pub largest: f64,
    /// Where it is.
    pub index: usize,
    /// The bound.
    pub allowed: f64,
}

impl Difference {
    /// Whether the bound holds.
    pub fn is_within(&self) -> bool {
        self.largest <= self.allowed
    }
}

/// The largest difference between `got` and `want`.
///
/// # Panics
/// If their lengths differ.
pub fn difference(got: &[f32], want: &[f32], tolerance: Tolerance) -> Difference {
    assert_eq!(got.len(), want.len(), "lengths differ");
    let scale = want.iter().fold(0.0, |max: f64, value| max.max(f64::from(value.abs())));
    let allowed = tolerance.absolute + tolerance.of_largest * scale;
    let mut found = Difference { largest: 0.0, index: 0, allowed };
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        let difference = (f64::from(*got) - f64::from(*want)).abs();
        let difference = if difference.is_nan() { f64::INFINITY } else { difference };
        if difference > found.largest {
            found = Difference { largest: difference, index, allowed };
        }
    }
    found
}

/// Fails the test unless `got` lies within the tolerance; returns the largest difference.
///
/// # Panics
/// If a bound is broken, saying which value and by how much.
pub fn assert_close(name: &str, got: &[f32], want: &[f32], tolerance: Tolerance) -> f64 {
    let found = difference(got, want, tolerance);
    assert!(
        found.is_within(),
        "{name}: element {} is {} instead of {}: differs by {:e}, allowed are {:e}",
        found.index,
        got[found.index],
        want[found.index],
        found.largest,
        found.allowed
    );
    found.largest
}
