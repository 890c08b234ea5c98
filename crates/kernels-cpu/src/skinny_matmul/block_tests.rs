//! Products with weights in blocks have the bits of products with their values.

// A skipped test prints a note.
#![allow(clippy::print_stdout)]

use ggml_blocks::TensorType;

use super::{MAX_ROWS, add_product, blocks, is_supported};
use crate::blocks::BlockRows;
use crate::precision::Precision;
use crate::weight_storage::StoredWeight;

fn value(idx: usize) -> f32 {
    ((idx * 37 + 11) % 64) as f32 / 31.7 - 1.0
}

/// Bytes of blocks whose scales are finite: in a number of half precision the highest bit of the exponent is not set.
pub(crate) fn any_blocks(ty: TensorType, n: usize) -> Vec<u8> {
    let n = ty.bytes(n as u64).expect("whole blocks");
    let mut state = 7_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 & 0xbf
    };
    (0..n).map(|_| next()).collect()
}

#[test]
fn bits_are_those_of_the_values() {
    if !is_supported() {
        println!("skipped: no fused multiplications here");
        return;
    }
    for ty in TensorType::ALL.into_iter().filter(|ty| ty.block_elements() > 1) {
        for columns in [1, 3, 21].map(|blocks| blocks * ty.block_elements()) {
            for d_out in [1, 7, 16, 70] {
                let bytes = any_blocks(ty, d_out * columns);
                let rows = BlockRows { bytes: &bytes, ty, columns };
                let values = rows.widened();
                assert!(values.iter().all(|value| value.is_finite()), "{}", ty.name());
                for n in [1, 2, 3, 4, 5, 8, 9, 16, 17, MAX_ROWS] {
                    let x: Vec<f32> = (0..n * columns).map(value).collect();
                    let width = d_out + 3;
                    let product = |weight: &StoredWeight| {
                        let mut out = vec![0.25; n * width];
                        add_product(&mut out, width, &x, weight, n, Precision::F32);
                        out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                    };
                    let got = product(&StoredWeight::Blocks(rows));
                    let want = product(&StoredWeight::F32(values.as_slice().into()));
                    assert!(got == want, "{} {n} {columns} {d_out}", ty.name());
                }
            }
        }
    }
}

/// Both ways, whichever the number of rows selects.
#[test]
fn groups_of_rows_have_the_bits_of_registers() {
    if !is_supported() {
        println!("skipped: no fused multiplications here");
        return;
    }
    let (n, columns, d_out) = (3, 96, 37);
    let x: Vec<f32> = (0..n * columns).map(value).collect();
    for ty in [TensorType::Q8_0, TensorType::Q4_0, TensorType::Q4_1] {
        let bytes = any_blocks(ty, d_out * columns);
        let rows = BlockRows { bytes: &bytes, ty, columns };
        let product = super::Product { n, d_in: columns, width: d_out };
        let (mut few, mut grouped) = (vec![0.0; n * d_out], vec![0.0; n * d_out]);
        blocks::add(product, &mut few, &x, &rows);
        blocks::add_grouped(product, &mut grouped, &x, &rows);
        assert_eq!(few, grouped, "{}", ty.name());
    }
}

/// The loops in AVX2 and those in AVX-512 have the same numbers.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
#[test]
fn instruction_sets_agree_to_the_bit() {
    use super::{LANES, Part, avx_blocks, avx512_blocks, generic, has_avx2, has_avx512};

    const COLUMNS: usize = 160;
    let x: Vec<f32> = (0..4 * COLUMNS).map(|idx| value(idx * 7) * 0.3).collect();
    let start: Vec<f32> = (0..4 * 2 * LANES).map(value).collect();
    macro_rules! check {
        ($ty:ident, $name:ident) => {
            let bytes = any_blocks(TensorType::$ty, 2 * COLUMNS);
            let rows = BlockRows { bytes: &bytes, ty: TensorType::$ty, columns: COLUMNS };
            let (values, (weight, _)) = (rows.widened(), bytes.as_chunks());
            let (stride, d_in, prefetches) = (COLUMNS, COLUMNS, true);
            let (from, to, row) = (0, d_in, d_in);
            let mut want = start.clone();
            let part = Part { x: &x, stride, weight: &values, row, d_in, from, to, prefetches };
            generic::f32s::<4, 2>(&mut want, &part);
            let row = d_in / 32;
            let part = Part { x: &x, stride, weight, row, d_in, from, to, prefetches };
            #[allow(unsafe_code)]
            // SAFETY: each is called only if the processor has its instructions.
            unsafe {
                if has_avx2() && blocks::has_f16c() {
                    let mut got = start.clone();
                    let first = Part { to: 64, ..part };
                    avx_blocks::$name::<4, 2>(&mut got, &first);
                    avx_blocks::$name::<4, 2>(&mut got, &Part { from: 64, ..part });
                    assert_eq!(got, want, "{}", stringify!($name));
                }
                if has_avx512() && blocks::has_f16c() {
                    let mut got = start.clone();
                    let first = Part { to: 64, ..part };
                    avx512_blocks::$name::<4, 2>(&mut got, &first);
                    avx512_blocks::$name::<4, 2>(&mut got, &Part { from: 64, ..part });
                    assert_eq!(got, want, "{}", stringify!($name));
                }
            }
        };
    }
    check!(Q8_0, q8_0);
    check!(Q4_0, q4_0);
    check!(Q4_1, q4_1);
}
