//! Comparison of values with a reference, within a tolerance.
//!
//! A tolerance has an absolute part and a part relative to the largest value of the reference.

/// The largest accepted difference between values and their reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// The part that does not depend on the reference.
    pub absolute: f64,
    /// The factor of the largest magnitude in the reference.
    pub of_largest: f64,
}

impl Tolerance {
    /// Logits and hidden states against the reference implementation.
    pub const LOGITS: Self = Self { absolute: 1e-5, of_largest: 3e-6 };
    /// Each gradient tensor against the reference implementation.
    pub const GRADIENTS: Self = Self { absolute: 1e-6, of_largest: 3e-6 };

    /// An absolute tolerance.
    pub const fn absolute(absolute: f64) -> Self {
        Self { absolute, of_largest: 0.0 }
    }
}

/// The largest difference between two lists, and the bound on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The largest |got - want|; infinite if one side is not a number.
    pub largest: f64,
    /// Its index.
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

/// Fails the test unless `got` is within the tolerance; returns the largest difference.
///
/// # Panics
/// If a value is out of bounds; the message has the value and the difference.
pub fn assert_close(name: &str, got: &[f32], want: &[f32], tolerance: Tolerance) -> f64 {
    let found = difference(got, want, tolerance);
    assert!(
        found.is_within(),
        "{name}: element {} is {} instead of {}: differs by {:e}, the tolerance is {:e}",
        found.index,
        got[found.index],
        want[found.index],
        found.largest,
        found.allowed
    );
    found.largest
}
