//! Inputs of 8-bit layers as bitsandbytes rounds them in evaluation (LLM.int8, Dettmers et al. 2022, section 3).
//!
//! Temper multiplies by inputs as they are, as bitsandbytes does on the CPU in training. Rounded inputs serve comparisons
//! with it: they make a text's result depend on the other texts of its batch.

use burn::tensor::{DType, Tensor, TensorData};

/// The factor of bitsandbytes 0.50 for products of 8-bit numbers, `1 / 127²` but for a slip in the fifth digit.
const PRODUCT: f64 = 6.200_124e-5;

/// Rounds rows to 8 bits with a scale for each; a column that reaches `threshold` in any row keeps its values.
pub(crate) fn rounded<const D: usize>(x: Tensor<D>, threshold: f64) -> Tensor<D> {
    let (shape, device) = (x.dims(), x.device());
    let n_columns = shape.last().copied().unwrap_or(1).max(1);
    let values: Vec<f32> = x.clone().into_data().iter::<f32>().collect();
    // The scales and codes come from inputs in f16.
    let halves: Vec<f32> = x.cast(DType::F16).cast(DType::F32).into_data().iter::<f32>().collect();
    let is_outlier = |value: &f32| f64::from(value.abs()) >= threshold;
    let mut kept = vec![false; n_columns];
    for row in halves.chunks(n_columns) {
        for (kept, value) in kept.iter_mut().zip(row) {
            *kept |= is_outlier(value);
        }
    }
    let mut out = Vec::with_capacity(values.len());
    for (row, halves) in values.chunks(n_columns).zip(halves.chunks(n_columns)) {
        let inliers = halves.iter().filter(|value| !is_outlier(value));
        let scale = inliers.fold(0.0_f32, |max, value| max.max(value.abs()));
        let per_step = if scale > 0.0 { 127.0 / scale } else { 0.0 };
        let step = (f64::from(scale) * 127.0 * PRODUCT) as f32;
        let rounded = |half: f32| (half * per_step).round_ties_even() * step;
        let columns = row.iter().zip(halves).zip(&kept);
        out.extend(
            columns.map(|((value, half), kept)| if *kept { *value } else { rounded(*half) }),
        );
    }
    Tensor::from_data(TensorData::new(out, shape), &device)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::rounded;

    #[test]
    fn rows_have_scales_of_their_own_and_outlier_columns_keep_their_values() {
        let x = Tensor::<2>::from_data(
            [[127.0_f32, 0.4, 1.6, -2.5], [0.0127, 7.0, 0.0, 0.000_05]],
            &Device::flex(),
        );
        let got: Vec<f32> = rounded(x.clone(), 1e9).into_data().iter::<f32>().collect();
        let want = [127.0, 0.0, 2.0, -2.0, 0.0, 7.0, 0.0, 0.0];
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() <= 2.1e-5 * want.abs(), "{got} {want}");
        }
        // Columns 0 and 1 have a value of at least 6.
        let got: Vec<f32> = rounded(x, 6.0).into_data().iter::<f32>().collect();
        assert_eq!([got[0], got[1], got[4], got[5]], [127.0, 0.4, 0.0127, 7.0]);
        assert!((got[2] - 1.6).abs() <= 2.5 / 127.0 && (got[3] + 2.5).abs() < 1e-4, "{got:?}");
    }
}
