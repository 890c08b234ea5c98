//! Products of few rows against sums in f64, and rows alone against rows among others.

// A skipped test prints a note.
#![allow(clippy::print_stdout)]

use half::bf16;

use super::{MAX_ROWS, add_product, is_supported};
use crate::precision::Precision;
use crate::weight_storage::StoredWeight;

fn value(idx: usize) -> f32 {
    ((idx * 37 + 11) % 64) as f32 / 31.7 - 1.0
}

fn stored(values: &[f32], in_bf16: bool) -> StoredWeight<'_> {
    if in_bf16 {
        let rounded: Vec<bf16> = values.iter().map(|value| bf16::from_f32(*value)).collect();
        return StoredWeight::Bf16(rounded.into());
    }
    StoredWeight::F32(values.into())
}

/// Adds the product to a buffer of quarters and compares it with sums in f64.
fn check([n, d_in, d_out]: [usize; 3], in_bf16: bool, precision: Precision) {
    let round = |value: f32| bf16::from_f32(value).to_f32();
    let x: Vec<f32> = (0..n * d_in).map(value).collect();
    let weight: Vec<f32> = (0..d_out * d_in).map(|idx| value(idx + 5)).collect();
    let width = d_out + 3;
    let mut out = vec![0.25; n * width];
    add_product(&mut out, width, &x, &stored(&weight, in_bf16), n, precision);
    for (row, out) in out.chunks(width).enumerate() {
        for (o, got) in out.iter().enumerate() {
            let sum = |o: usize| -> f64 {
                let (x, w) = (&x[row * d_in..], &weight[o * d_in..][..d_in]);
                let terms = x.iter().zip(w).map(|(x, w)| {
                    let w = if in_bf16 { round(*w) } else { *w };
                    let x = if precision == Precision::Bf16 { round(*x) } else { *x };
                    f64::from(x) * f64::from(w)
                });
                terms.sum()
            };
            let want = if o < d_out { 0.25 + sum(o) } else { 0.25 };
            let near = (f64::from(*got) - want).abs() < 1e-4;
            assert!(near, "{n} {d_in} {d_out}: {got} {want}");
        }
    }
}

/// The kinds of weights and precisions that this processor multiplies.
fn kinds() -> Vec<(bool, Precision)> {
    let mut kinds = vec![(false, Precision::F32), (true, Precision::F32)];
    if crate::bf16::bf16_products() == crate::bf16::Bf16Products::Pairs {
        kinds.push((true, Precision::Bf16));
    }
    kinds
}

#[test]
fn products_of_any_size() {
    if !is_supported() {
        println!("skipped: no fused multiplications here");
        return;
    }
    let sizes = [
        [1, 1, 1],
        [1, 600, 33],
        [2, 3, 5],
        [3, 40, 21],
        [16, 8, 8],
        [17, 9, 70],
        [MAX_ROWS, 33, 130],
        [5, 256, 512],
        [8, 1300, 70],
    ];
    for sizes in sizes {
        for (in_bf16, precision) in kinds() {
            check(sizes, in_bf16, precision);
        }
    }
}

/// Whichever rows a row is computed with, its values are the same to the bit.
#[test]
fn rows_do_not_depend_on_each_other() {
    if !is_supported() {
        println!("skipped: no fused multiplications here");
        return;
    }
    let (n, d_in, d_out) = (13, 700, 37);
    let x: Vec<f32> = (0..n * d_in).map(|idx| value(idx * idx + 3)).collect();
    let weight: Vec<f32> = (0..d_out * d_in).map(|idx| value(idx * 3)).collect();
    for (in_bf16, precision) in kinds() {
        let weight = stored(&weight, in_bf16);
        let product = |rows: std::ops::Range<usize>| {
            let mut out = vec![0.0; rows.len() * d_out];
            let x = &x[rows.start * d_in..rows.end * d_in];
            add_product(&mut out, d_out, x, &weight, rows.len(), precision);
            out
        };
        let whole = product(0..n);
        for rows in [0..1, 3..5, 4..7, 5..9, 2..8, 1..9, 0..11] {
            let part = product(rows.clone());
            assert_eq!(part, whole[rows.start * d_out..rows.end * d_out], "{rows:?}");
        }
    }
}

/// A value that is not a number reaches the values of its own row of the weight and of x only.
#[test]
fn values_that_are_no_numbers_stay_in_their_rows() {
    if !is_supported() {
        println!("skipped: no fused multiplications here");
        return;
    }
    let (n, d_in, d_out) = (3, 35, 19);
    let mut x = vec![1.0; n * d_in];
    x[d_in + 34] = f32::NAN;
    let mut weight = vec![0.5; d_out * d_in];
    weight[7 * d_in] = f32::INFINITY;
    for (in_bf16, precision) in kinds() {
        let mut out = vec![0.0; n * d_out];
        add_product(&mut out, d_out, &x, &stored(&weight, in_bf16), n, precision);
        for (idx, got) in out.iter().enumerate() {
            let (row, out) = (idx / d_out, idx % d_out);
            let want = if row == 1 {
                f32::NAN
            } else if out == 7 {
                f32::INFINITY
            } else {
                17.5
            };
            assert_eq!(got.to_bits() | 1 << 22, want.to_bits() | 1 << 22, "{row} {out}: {got}");
        }
    }
}

/// Sums over lanes with a processor's instructions are those without.
#[test]
fn lanes_are_added_in_one_order() {
    let sums = std::array::from_fn(|idx| value(idx * idx) * 1.7);
    let want = super::generic::sum_lanes(&sums);
    let plain: Vec<f32> = sums.chunks(16).map(|lanes| lanes.iter().sum()).collect();
    for (want, plain) in want.iter().zip(&plain) {
        assert!((want - plain).abs() < 1e-4, "{want} {plain}");
    }
    if is_supported() {
        #[allow(unsafe_code)]
        // SAFETY: the processor has the instructions, as was just checked.
        let got = unsafe { (super::f32s().sum_lanes)(&sums) };
        assert_eq!(got, want);
    }
}

/// The loops in AVX2 and those in AVX-512 have the same numbers as the portable ones.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
#[test]
fn instruction_sets_agree_to_the_bit() {
    use super::{LANES, PADDING, Part, avx, avx512, generic, has_avx2, has_avx512};

    let (stride, d_in) = (PADDING * 2, 45);
    let mut x = vec![0.0; 4 * stride];
    for row in x.chunks_mut(stride) {
        row[..d_in].iter_mut().enumerate().for_each(|(idx, x)| *x = value(idx * 7) * 0.3);
    }
    let weight: Vec<f32> = (0..2 * d_in).map(|idx| value(idx * 11) * 0.7).collect();
    let bf16s: Vec<bf16> = weight.iter().map(|value| bf16::from_f32(*value)).collect();
    macro_rules! part {
        ($weight:expr) => {
            Part {
                x: &x,
                stride,
                weight: $weight,
                row: d_in,
                d_in,
                from: 0,
                to: d_in,
                prefetches: true,
            }
        };
    }
    let start: Vec<f32> = (0..4 * 2 * LANES).map(value).collect();
    let (mut f32s, mut widened) = (start.clone(), start.clone());
    generic::f32s::<4, 2>(&mut f32s, &part!(&weight));
    generic::widened::<4, 2>(&mut widened, &part!(&bf16s));
    #[allow(unsafe_code)]
    // SAFETY: each is called only if the processor has its instructions.
    unsafe {
        if has_avx2() {
            let (mut first, mut second) = (start.clone(), start.clone());
            avx::f32s::<4, 2>(&mut first, &part!(&weight));
            avx::widened::<4, 2>(&mut second, &part!(&bf16s));
            assert_eq!((first, second), (f32s.clone(), widened.clone()));
        }
        if has_avx512() {
            let (mut first, mut second) = (start.clone(), start);
            avx512::f32s::<4, 2>(&mut first, &part!(&weight));
            avx512::widened::<4, 2>(&mut second, &part!(&bf16s));
            assert_eq!((first, second), (f32s, widened));
        }
    }
}
