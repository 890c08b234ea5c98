//! Arithmetic on slices that the compiler vectorizes.
//!
//! Multiplications and additions are in a fixed order, sixteen lanes at a time, and fused only where the source says so
//! (`mul_add`), so that results are equal to the bit on every processor, whatever the width of its vectors.

/// Lanes of a partial sum or maximum.
pub(crate) const LANES: usize = 16;

/// Compiles a function for several instruction sets and selects one at run time.
///
/// The portable build compiles it once, for the target's baseline; results are equal to the bit. Such a function may call
/// only functions that are always inlined: others are compiled for the baseline, where `mul_add` is a call of the C library.
macro_rules! multiversion {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $kind:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $kind),*) $(-> $out)? {
            #[inline(always)]
            #[allow(clippy::inline_always)]
            fn body($($arg: $kind),*) $(-> $out)? $body

            #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $kind),*) $(-> $out)? {
                    body($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $kind),*) $(-> $out)? {
                    body($($arg),*)
                }
                if $crate::simd::has_avx512() {
                    #[allow(unsafe_code)]
                    // SAFETY: the processor has the instructions, as was just checked.
                    return unsafe { avx512($($arg),*) };
                }
                if $crate::simd::has_avx2() {
                    #[allow(unsafe_code)]
                    // SAFETY: the processor has the instructions, as was just checked.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// Whether the processor has the parts of AVX-512 that [`multiversion`] compiles for.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
pub(crate) fn has_avx512() -> bool {
    // Called for every row of a tensor, so the processor is queried once.
    static FOUND: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *FOUND.get_or_init(|| {
        std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512dq")
            && std::arch::is_x86_feature_detected!("avx512vl")
    })
}

/// Whether the processor has the instructions before AVX-512 that [`multiversion`] compiles for: AVX2 and fused
/// multiply-adds, which came with it.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
pub(crate) fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

/// e^x to about one unit in the last place; 0 below -87, at most 2.4e38 above 88. NaN stays NaN.
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    const HIGHEST: f32 = 88.3;
    // ln 2 in two parts; the first has so few bits that its product with a small integer is exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = (std::f64::consts::LN_2 - LN_2_HIGH as f64) as f32;
    // Adding it rounds to an integer, which is in the lowest bits, together with the bias of exponents.
    const ROUND: f32 = 12_582_912.0 + 127.0;
    // Below the lowest, where what follows is meaningless, the result is not used.
    let within = if x > HIGHEST { HIGHEST } else { x };
    let shifted = within.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, within));
    // |r| <= ln(2) / 2. The first terms are those of the Taylor series, the others minimize the largest relative error:
    // 4e-9.
    let series = 0.001_386_376_2_f32;
    let series = series.mul_add(r, 0.008_367_51);
    let series = series.mul_add(r, 0.041_667_24);
    let series = series.mul_add(r, 0.166_665_34);
    let series = series.mul_add(r, 0.5);
    let series = series.mul_add(r, 1.0);
    let series = series.mul_add(r, 1.0);
    let power = f32::from_bits(shifted.to_bits() << 23);
    if x < LOWEST { 0.0 } else { series * power }
}

/// 1 / (1 + e^-x).
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The hyperbolic tangent, within a few units in the last place.
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn tanh(x: f32) -> f32 {
    // 2σ(2x) − 1 cancels near 0, where the Taylor series takes its place.
    let square = x * x;
    let series = 62.0 / 2835.0;
    let series = series * square - 17.0 / 315.0;
    let series = series * square + 2.0 / 15.0;
    let series = series * square - 1.0 / 3.0;
    let series = x + x * square * series;
    if x.abs() < 0.3 { series } else { 2.0 * sigmoid(2.0 * x) - 1.0 }
}

/// The largest value; NaNs are skipped.
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane = if *value > *lane { *value } else { *lane };
    }
    largest_lane(lanes)
}

/// The largest lane, by halves as in [`sum_lanes`]; no lane is NaN.
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn largest_lane(lanes: [f32; LANES]) -> f32 {
    let mut largest = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for idx in 0..width {
            let other = largest[idx + width];
            largest[idx] = if other > largest[idx] { other } else { largest[idx] };
        }
        width /= 2;
    }
    largest[0]
}

/// Replaces each value by e^(value - largest); returns their sum.
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn exp_and_sum(values: &mut [f32], largest: f32) -> f32 {
    let (chunks, rest) = values.as_chunks_mut::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *value = exp(*value - largest);
            *lane += *value;
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *value = exp(*value - largest);
        *lane += *value;
    }
    sum_lanes(lanes)
}

/// The sum of all lanes, by halves: a chain of sixteen additions would take longer than many of the sums.
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let mut sums = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for idx in 0..width {
            sums[idx] += sums[idx + width];
        }
        width /= 2;
    }
    sums[0]
}

/// Σ x.
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn sum(values: &[f32]) -> f32 {
    summed(values, |value| value)
}

/// Σ (x - middle)².
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn sum_of_squares_from(values: &[f32], middle: f32) -> f32 {
    summed(values, |value| (value - middle) * (value - middle))
}

#[inline(always)]
#[allow(clippy::inline_always)]
fn summed(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += term(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += term(*value);
    }
    sum_lanes(lanes)
}

/// Σ a·b.
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += a * b;
    }
    sum_lanes(lanes)
}

/// Σ a·b·c.
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn dot3(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let (c, c_rest) = c.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for (lane, ((a, b), c)) in lanes.iter_mut().zip(a.iter().zip(b).zip(c)) {
            *lane += a * b * c;
        }
    }
    for (lane, ((a, b), c)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest).zip(c_rest)) {
        *lane += a * b * c;
    }
    sum_lanes(lanes)
}

#[cfg(test)]
mod tests {
    use super::{dot, exp, max, sigmoid, tanh};

    #[test]
    fn exp_is_close_everywhere() {
        let mut worst: f64 = 0.0;
        for i in -870_000..=883_000 {
            let x = i as f32 / 10_000.0;
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / want - 1.0).abs());
        }
        assert!(worst < 2e-7, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!([exp(-1e30), exp(f32::NEG_INFINITY), exp(-87.1)], [0.0; 3]);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::INFINITY) > 2e38);
    }

    #[test]
    fn sigmoid_ends_at_zero_and_one() {
        assert_eq!(sigmoid(0.0), 0.5);
        assert_eq!(sigmoid(200.0), 1.0);
        assert!(sigmoid(-200.0) < 1e-38);
        assert!(sigmoid(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_is_close_everywhere() {
        for i in -4000..=4000 {
            let x = i as f32 * 0.003;
            let want = f64::from(x).tanh();
            assert!((f64::from(tanh(x)) - want).abs() <= 5e-7 * want.abs(), "{x}");
        }
        assert_eq!([tanh(0.0), tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)], [0.0, 1.0, -1.0]);
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_take_every_value_once() {
        for n in [0, 1, 15, 16, 17, 40] {
            let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let squares: f32 = values.iter().map(|v| v * v).sum();
            assert_eq!(dot(&values, &values), squares);
            let largest = values.last().copied().unwrap_or(f32::NEG_INFINITY);
            assert_eq!(max(&values), largest);
        }
    }
}
