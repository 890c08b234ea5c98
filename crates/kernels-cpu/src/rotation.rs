//! Rotation of a head's pairs `(x[j], x[j + k/2])` by their angles.

use crate::simd::multiversion;

multiversion! {
    /// `out = scale · R·x` for one head, with R the rotation of each pair by its angle.
    fn rotate(out: &mut [f32], x: &[f32], cos: &[f32], sin: &[f32], scale: f32) {
        let (x_first, x_second) = x.split_at(x.len() / 2);
        let (first, second) = out.split_at_mut(x.len() / 2);
        let halves = first.iter_mut().zip(second).zip(x_first.iter().zip(x_second));
        for (((first, second), (a, b)), (cos, sin)) in halves.zip(cos.iter().zip(sin)) {
            *first = (a * cos - b * sin) * scale;
            *second = (b * cos + a * sin) * scale;
        }
    }
}

multiversion! {
    /// `out = scale · Rᵀ·d` for one head: the gradient of [`rotate`].
    fn rotate_back(out: &mut [f32], d: &[f32], cos: &[f32], sin: &[f32], scale: f32) {
        let (d_first, d_second) = d.split_at(d.len() / 2);
        let (first, second) = out.split_at_mut(d.len() / 2);
        let halves = first.iter_mut().zip(second).zip(d_first.iter().zip(d_second));
        for (((first, second), (a, b)), (cos, sin)) in halves.zip(cos.iter().zip(sin)) {
            *first = (a * cos + b * sin) * scale;
            *second = (b * cos - a * sin) * scale;
        }
    }
}
