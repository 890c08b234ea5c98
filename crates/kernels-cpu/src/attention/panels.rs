//! Rows of a head as panels: 32 rows become the columns of a product's right side.

use super::small_product::{LANES, PANEL};

/// Writes rows of `k` values, `width` apart, as panels `[rows / 32][k][32]`. Missing rows of the last panel are zeros.
///
/// # Panics
/// If there are fewer panels than rows for them.
pub(super) fn write_panels(panels: &mut [f32], rows: &[f32], width: usize, k: usize) {
    assert!(panels.len() / (k * PANEL) * PANEL * width >= rows.len(), "panels for the rows");
    for (panel, rows) in panels.chunks_mut(k * PANEL).zip(rows.chunks(PANEL * width)) {
        for first in (0..PANEL).step_by(LANES) {
            let rows = rows.get(first * width..).unwrap_or(&[]);
            write_half(&mut panel[first..], rows, width, k);
        }
    }
}

/// Sixteen columns of a panel.
fn write_half(panel: &mut [f32], rows: &[f32], width: usize, k: usize) {
    let n = (rows.len() / width).min(LANES);
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    if n == LANES && k.is_multiple_of(4) && crate::simd::has_avx512() {
        #[allow(unsafe_code)]
        // SAFETY: the processor has the instructions, as was just checked.
        unsafe {
            avx512::sixteen(panel, rows, width, k);
        }
        return;
    }
    for (idx, columns) in panel.chunks_mut(PANEL).take(k).enumerate() {
        for (column, value) in columns[..LANES].iter_mut().enumerate() {
            *value = if column < n { rows[column * width + idx] } else { 0.0 };
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod avx512 {
    //! Four values of sixteen rows at a time.

    use std::arch::x86_64::{
        __m512d, _mm_loadu_ps, _mm512_castpd_ps, _mm512_castps_pd, _mm512_castps128_ps512,
        _mm512_insertf32x4, _mm512_storeu_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps,
        _mm512_unpacklo_pd, _mm512_unpacklo_ps,
    };

    use super::{LANES, PANEL};

    #[target_feature(enable = "avx512f")]
    pub(super) fn sixteen(panel: &mut [f32], rows: &[f32], width: usize, k: usize) {
        assert!(k.is_multiple_of(4) && k <= width && rows.len() >= LANES * width, "sixteen rows");
        assert!(panel.len() >= (k - 1) * PANEL + LANES, "{k} rows of a panel");
        for column in (0..k).step_by(4) {
            let quad = |row: usize| {
                #[allow(unsafe_code)]
                // SAFETY: sixteen rows have four values from this column on, as was just checked.
                unsafe {
                    _mm_loadu_ps(rows.as_ptr().add(row * width + column))
                }
            };
            // A lane of four has the values of rows `row`, `row + 4`, `row + 8` and `row + 12`.
            let rows_from = |row: usize| {
                let v = _mm512_castps128_ps512(quad(row));
                let v = _mm512_insertf32x4::<1>(v, quad(row + 4));
                let v = _mm512_insertf32x4::<2>(v, quad(row + 8));
                _mm512_insertf32x4::<3>(v, quad(row + 12))
            };
            let (a, b, c, d) = (rows_from(0), rows_from(1), rows_from(2), rows_from(3));
            let (low, high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let (other_low, other_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let (low, high) = (_mm512_castps_pd(low), _mm512_castps_pd(high));
            let (other_low, other_high) =
                (_mm512_castps_pd(other_low), _mm512_castps_pd(other_high));
            let mut put = |idx: usize, values: __m512d| {
                #[allow(unsafe_code)]
                // SAFETY: `k` rows of the panel have sixteen values, as was just checked.
                unsafe {
                    let to = panel.as_mut_ptr().add((column + idx) * PANEL);
                    _mm512_storeu_ps(to, _mm512_castpd_ps(values));
                }
            };
            put(0, _mm512_unpacklo_pd(low, other_low));
            put(1, _mm512_unpackhi_pd(low, other_low));
            put(2, _mm512_unpacklo_pd(high, other_high));
            put(3, _mm512_unpackhi_pd(high, other_high));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PANEL, write_panels};

    #[test]
    fn every_value_is_in_its_place() {
        for (n, k, width) in
            [(1_usize, 1, 16), (16, 4, 16), (17, 3, 16), (33, 32, 32), (70, 20, 32)]
        {
            let rows: Vec<f32> = (0..n * width).map(|i| i as f32 + 1.0).collect();
            let mut panels = vec![f32::NAN; n.next_multiple_of(PANEL) * k];
            write_panels(&mut panels, &rows, width, k);
            for (at, value) in panels.iter().enumerate() {
                let row = at / (k * PANEL) * PANEL + at % PANEL;
                let want = if row < n { rows[row * width + at / PANEL % k] } else { 0.0 };
                assert_eq!(*value, want, "{n} {k} {width}, value {at}");
            }
        }
    }
}
