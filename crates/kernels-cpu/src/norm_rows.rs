//! Arithmetic of RMSNorm and LayerNorm, row by row, on the calling thread.

use crate::simd::{self, multiversion};

multiversion! {
    /// 1 / sqrt(mean(x²) + eps) of each row.
    fn rstd(out: &mut [f32], x: &[f32], eps: f32) {
        let d = x.len() / out.len().max(1);
        for (out, x) in out.iter_mut().zip(x.chunks(d.max(1))) {
            *out = 1.0 / (simd::dot(x, x) / d as f32 + eps).sqrt();
        }
    }
}

multiversion! {
    fn norm_row(out: &mut [f32], x: &[f32], weight: &[f32], rstd: f32) {
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * rstd * weight;
        }
    }
}

multiversion! {
    /// Replaces `d_out` by the gradient of x; adds the weight's gradient to `d_weight` unless that is empty.
    fn norm_row_backward(
        d_out: &mut [f32],
        x: &[f32],
        weight: &[f32],
        rstd: f32,
        d_weight: &mut [f32],
    ) {
        let shared = simd::dot3(d_out, x, weight) * rstd * rstd / x.len() as f32;
        if !d_weight.is_empty() {
            for ((d_weight, d_out), x) in d_weight.iter_mut().zip(d_out.iter()).zip(x) {
                *d_weight += d_out * x * rstd;
            }
        }
        for ((d_out, x), weight) in d_out.iter_mut().zip(x).zip(weight) {
            *d_out = rstd * (*d_out * weight - x * shared);
        }
    }
}

multiversion! {
    /// The mean of a row, and 1 / sqrt(variance + eps) with the biased variance.
    fn mean_and_rstd(x: &[f32], eps: f32) -> [f32; 2] {
        let n = x.len() as f32;
        let mean = simd::sum(x) / n;
        [mean, 1.0 / (simd::sum_of_squares_from(x, mean) / n + eps).sqrt()]
    }
}

multiversion! {
    /// (x - mean) · rstd · weight + bias, or without a bias if that is empty.
    fn layer_norm_row(
        out: &mut [f32],
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        of: [f32; 2],
    ) {
        let [mean, rstd] = of;
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = (x - mean) * rstd * weight;
        }
        for (out, bias) in out.iter_mut().zip(bias) {
            *out += bias;
        }
    }
}

multiversion! {
    /// Replaces `d_out` by the gradient of x; adds the weight's gradient to `d_weight` unless that is empty.
    fn layer_norm_row_backward(
        d_out: &mut [f32],
        x: &[f32],
        weight: &[f32],
        of: [f32; 2],
        d_weight: &mut [f32],
    ) {
        let [mean, rstd] = of;
        for ((d_weight, d_out), x) in d_weight.iter_mut().zip(d_out.iter()).zip(x) {
            *d_weight += d_out * ((x - mean) * rstd);
        }
        let n = x.len() as f32;
        for (d_out, weight) in d_out.iter_mut().zip(weight) {
            *d_out *= weight;
        }
        let of_mean = simd::sum(d_out) / n;
        // Component of the gradient along the normalized row.
        let of_rstd = (simd::dot(d_out, x) - mean * simd::sum(d_out)) * rstd / n;
        for (d_out, x) in d_out.iter_mut().zip(x) {
            *d_out = rstd * (*d_out - of_mean - (x - mean) * rstd * of_rstd);
        }
    }
}
