//! Blockwise dynamic quantisation to 8 bits (Dettmers et al. 2022): each block of values is divided by its largest
//! magnitude, and each quotient becomes the nearest of 256 values that are dense near 0.
//!
//! Relative precision is best for large values, and seven decades are covered; see [`kernels::dynamic_code`].

use std::sync::LazyLock;

use plan::optimizer::QUANTISED_BLOCK as BLOCK;

/// Buckets by sign, exponent and the first seven bits of the mantissa; magnitudes below 2⁻²⁴ are in the first one.
const MANTISSA_BITS: u32 = 7;
const N_OCTAVES: u32 = 24;
const N_BUCKETS: usize = ((N_OCTAVES << MANTISSA_BITS) + 1) as usize;

/// 256 values in rising order, with what finds the nearest one quickly.
#[derive(Debug)]
pub(super) struct Code {
    values: [f32; 256],
    /// Halfway between neighbours; the last is never passed.
    midpoints: [f32; 256],
    /// The first code that a value of each bucket can have; magnitudes of positive values, then of negative ones.
    first: [Vec<u8>; 2],
}

/// Values quantised in blocks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Quantised {
    pub(super) codes: Vec<u8>,
    /// The largest magnitude of each block.
    pub(super) absmax: Vec<f32>,
}

impl Quantised {
    /// `n` zeros.
    pub(super) fn zeros(n: usize, code: &Code) -> Self {
        Self { codes: vec![code.nearest(0.0); n], absmax: vec![0.0; n.div_ceil(BLOCK)] }
    }
}

/// The code of values from −1 to 1, with 64 steps in the largest decade.
pub(super) fn signed() -> &'static Code {
    static CODE: LazyLock<Code> = LazyLock::new(|| Code::new(true));
    &CODE
}

/// The code of values from 0 to 1, with 128 steps in the largest decade.
pub(super) fn unsigned() -> &'static Code {
    static CODE: LazyLock<Code> = LazyLock::new(|| Code::new(false));
    &CODE
}

impl Code {
    fn new(is_signed: bool) -> Self {
        let values = kernels::dynamic_code(is_signed);
        let mut midpoints = [f32::INFINITY; 256];
        for (midpoint, pair) in midpoints.iter_mut().zip(values.windows(2)) {
            *midpoint = f32::midpoint(pair[0], pair[1]);
        }
        let first = [1.0_f32, -1.0].map(|sign| {
            (0..N_BUCKETS).map(|bucket| first_code(&midpoints, sign, bucket)).collect()
        });
        Self { values, midpoints, first }
    }

    /// The code of the value nearest to `x`, which is from −1 to 1; of two as near, the smaller.
    pub(super) fn nearest(&self, x: f32) -> u8 {
        let bits = (x.to_bits() & 0x7FFF_FFFF) >> (23 - MANTISSA_BITS);
        let bucket = bits.saturating_sub((127 - N_OCTAVES) << MANTISSA_BITS) as usize;
        let first = &self.first[usize::from(x.is_sign_negative())];
        let mut code = first.get(bucket).copied().unwrap_or_default();
        while self.midpoints[usize::from(code)] < x {
            code += 1;
        }
        code
    }

    /// The value of a code.
    pub(super) fn value(&self, code: u8) -> f32 {
        self.values[usize::from(code)]
    }

    /// Quantises a block and returns its largest magnitude.
    pub(super) fn quantise(&self, values: &[f32], codes: &mut [u8]) -> f32 {
        let absmax = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        // The quotient may round to just above 1, or be 0 / 0.
        let scale = if absmax > 0.0 { absmax } else { 1.0 };
        for (code, value) in codes.iter_mut().zip(values) {
            *code = self.nearest((value / scale).clamp(-1.0, 1.0));
        }
        absmax
    }
}

/// The number of midpoints below every value of a bucket.
fn first_code(midpoints: &[f32; 256], sign: f32, bucket: usize) -> u8 {
    let edge = |bucket: usize| {
        f32::from_bits(
            (((127 - N_OCTAVES) << MANTISSA_BITS) + bucket as u32) << (23 - MANTISSA_BITS),
        )
    };
    let smallest = match (bucket, sign > 0.0) {
        (0, true) => 0.0,
        (_, true) => edge(bucket),
        (_, false) => -edge(bucket + 1),
    };
    midpoints.partition_point(|midpoint| *midpoint < smallest) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The table of bitsandbytes 0.50, from the reference vectors.
    const REFERENCE: &str = include_str!("../../tests/dynamic_map.txt");

    #[test]
    fn the_signed_code_is_that_of_bitsandbytes() {
        let reference: Vec<f32> =
            REFERENCE.split_whitespace().map(|number| number.parse().expect("a number")).collect();
        assert_eq!(reference.len(), 256);
        for (code, want) in (0..=255).zip(reference) {
            let got = signed().value(code);
            assert!((got - want).abs() <= 1e-6 * want.abs(), "{code}: {got} is not {want}");
        }
    }

    #[test]
    fn both_codes_rise_and_hold_0_and_1() {
        for code in [signed(), unsigned()] {
            assert!(code.values.windows(2).all(|pair| pair[0] < pair[1]));
            assert_eq!(code.value(code.nearest(0.0)), 0.0);
            assert_eq!(code.value(code.nearest(-0.0)), 0.0);
            assert_eq!(code.value(255), 1.0);
        }
        assert_eq!(unsigned().value(0), 0.0);
        assert!(unsigned().value(1) < 1e-6 && unsigned().value(1) > 1e-7);
    }

    /// The search by buckets finds what a search through all values finds.
    #[test]
    fn the_nearest_code_is_found() {
        for code in [signed(), unsigned()] {
            let smallest = code.values[0];
            let n = 200_000;
            let even = (0..=n).map(|i| smallest + (1.0 - smallest) * (i as f32 / n as f32));
            let small = (0..4000).map(|i| 2.0_f32.powf(-40.0 + i as f32 / 100.0));
            let around =
                code.midpoints.iter().take(255).flat_map(|m| [*m, m.next_up(), m.next_down()]);
            for x in even.chain(small.clone()).chain(small.map(|x| -x)).chain(around) {
                if x < smallest {
                    continue;
                }
                let want = code.midpoints.partition_point(|midpoint| *midpoint < x);
                assert_eq!(usize::from(code.nearest(x)), want, "{x:e}");
            }
        }
    }

    proptest! {
        /// A decoded value differs by at most half the gap between neighbouring codes, times the block's scale.
        #[test]
        fn the_error_is_bounded(
            values in prop::collection::vec(-1.0_f32..1.0, 1..=BLOCK),
            exponent in -30_i32..30,
            decades in 0.0_f32..8.0,
        ) {
            // Spread over several decades.
            let spread = |x: f32| x.signum() * 10.0_f32.powf(-decades * (1.0 - x.abs()));
            let values: Vec<f32> = values.iter().map(|x| spread(*x) * 2.0_f32.powi(exponent)).collect();
            let mut codes = vec![0; values.len()];
            let absmax = signed().quantise(&values, &mut codes);
            for (value, code) in values.iter().zip(codes) {
                let size = (value / absmax).abs();
                let got = signed().value(code) * absmax;
                // A decade has 2^i steps of 0.9 of its end; below the last one everything is 0 or the smallest code.
                let decade = (-f64::from(size).log10()).floor().clamp(0.0, 6.0);
                let step = 0.9 * 10.0_f64.powf(-decade) / 2.0_f64.powf(6.0 - decade);
                let bound = f64::from(absmax) * (0.5 * step * 1.001 + 3e-7);
                let error = f64::from((got - value).abs());
                // At a border of decades the gap is between two widths.
                prop_assert!(error <= bound * 1.6, "{value:e} {got:e} {bound:e}");
            }
        }
    }
}
