//! Soft cap of logits: `cap · tanh(x / cap)` (Gemma Team 2024, Gemma 2, section 2).

use crate::simd::{self, multiversion};

/// Caps each value in place.
pub(crate) fn soft_cap(values: &mut [f32], cap: f32) {
    capped(values, cap);
}

/// Turns gradients of capped values into those of the values before, in place: times 1 − tanh².
pub(crate) fn soft_cap_gradient(gradients: &mut [f32], capped: &[f32], cap: f32) {
    slopes(gradients, capped, cap);
}

multiversion! {
    fn capped(values: &mut [f32], cap: f32) {
        let inverse = 1.0 / cap;
        for value in values {
            *value = cap * simd::tanh(*value * inverse);
        }
    }
}

multiversion! {
    fn slopes(gradients: &mut [f32], capped: &[f32], cap: f32) {
        let inverse = 1.0 / cap;
        for (gradient, capped) in gradients.iter_mut().zip(capped) {
            let tanh = *capped * inverse;
            *gradient *= (1.0 - tanh * tanh).max(0.0);
        }
    }
}
