//! Attention of a few queries against a KV cache, without autodiff.

use burn::tensor::{Device, Int, Tensor};
use kernels::{AttentionMask, attention};
use testkit::{Tolerance, assert_close, values};

use super::{on_gpu, packed, plain};
use crate::operations::mask;
use crate::reference::Attention;
use crate::support::{bits, device, f32s, f64s, ints, random};

const CLOSE: Tolerance = Tolerance { absolute: 1e-5, of_largest: 4e-6 };

/// Keys or values of `s` positions as a layer's cache has them: a view of `[b, g, slots, k]` from slot `first` on, whose other
/// slots are NaN.
fn cached(values_bsgk: Tensor<4>, first: usize, free: usize) -> Tensor<4> {
    let [b, s, g, k] = values_bsgk.dims();
    let place = [0..b, 0..g, first..first + s, 0..k];
    let slots = Tensor::full([b, g, first + s + free, k], f32::NAN, &values_bsgk.device());
    slots.slice_assign(place.clone(), values_bsgk.swap_dims(1, 2)).slice(place).swap_dims(1, 2)
}

/// The same mask with segments of the keys that are a part of a longer row.
fn mask_of_a_cache(case: &Attention) -> AttentionMask {
    let Attention { b, t, s, .. } = *case;
    let q_bt = ints(&case.q_segments, [b, t]);
    let longer: Tensor<2, Int> = Tensor::full([b, s + 3], 77, &device());
    let k_bs =
        longer.slice_assign([0..b, 0..s], ints(&case.k_segments, [b, s])).slice([0..b, 0..s]);
    AttentionMask::causal(q_bt, k_bs).with_window(case.window).with_soft_cap(case.soft_cap)
}

/// Queries, keys and values, with NaN in one element of one of them if `spoiled`.
fn operands(case: &Attention, spoiled: Option<usize>) -> [Tensor<4>; 3] {
    let Attention { b, t, s, h, g, k, .. } = *case;
    let shapes = [[b, t, h, k], [b, s, g, k], [b, s, g, k]];
    let mut seed = 0;
    let mut index = 0;
    shapes.map(|shape| {
        seed += 1;
        let x = random(shape, seed, &Device::flex());
        let last = shape.map(|n| n - 1..n);
        let x = if spoiled == Some(index) { x.slice_fill(last, f32::NAN) } else { x };
        index += 1;
        x
    })
}

fn check(case: &Attention) {
    let run = |operands: &[Tensor<4>; 3], from_cache: bool| -> Vec<f32> {
        let [q, k, v] = operands.clone().map(|x| Tensor::from_data(x.into_data(), &device()));
        if !from_cache {
            return values(&attention(q, k, v, &mask(case), case.scale));
        }
        let [k, v] = [k, v].map(|x| cached(x, 128, 128));
        values(&attention(q, k, v, &mask_of_a_cache(case), case.scale))
    };
    let reference = |operands: &[Tensor<4>; 3]| -> Vec<f32> {
        let [q, k, v] = operands.each_ref().map(f64s);
        f32s(&case.forward(&q, &k, &v))
    };
    let x = operands(case, None);
    let want = reference(&x);
    for from_cache in [false, true].into_iter().take(if case.bidirectional { 1 } else { 2 }) {
        let name = format!("cache {from_cache}, {case:?}");
        let (found, again) = (run(&x, from_cache), run(&x, from_cache));
        assert_close(&name, &found, &want, CLOSE);
        assert!(bits(&[found]) == bits(&[again]), "{name}: another run gives other bits");
        for spoiled in 0..3 {
            let x = operands(case, Some(spoiled));
            let (want, found) = (reference(&x), run(&x, from_cache));
            let hidden = want.iter().zip(&found).any(|(want, got)| want.is_nan() && !got.is_nan());
            assert!(!hidden, "{name}: a NaN in input {spoiled} is hidden");
        }
    }
}

/// Rows with padding on their left, as prompts of different lengths have it; a row of padding alone.
fn padded(case: Attention) -> Attention {
    let segment = |i: usize| if i % case.s < i / case.s * case.s / 2 { -1 } else { 0 };
    Attention { k_segments: (0..case.b * case.s).map(segment).collect(), ..case }
}

#[test]
fn a_few_queries_against_a_cache() {
    on_gpu(|| {
        let cases = [
            plain([1, 1, 1], [1, 1, 1]),
            plain([2, 1, 9], [4, 2, 6]),
            plain([1, 1, 70], [3, 3, 33]),
            // More queries and heads than the rows of a cube.
            plain([1, 3, 70], [12, 2, 16]),
            plain([2, 8, 37], [4, 4, 10]),
            // The third row sees nothing.
            padded(plain([3, 1, 67], [4, 2, 8])),
            padded(Attention { window: Some(13), ..plain([2, 2, 150], [4, 2, 8]) }),
            Attention { soft_cap: Some(1.5), window: Some(64), ..plain([1, 5, 131], [2, 1, 34]) },
            Attention { bidirectional: true, ..plain([1, 4, 75], [2, 2, 3]) },
            Attention { bidirectional: true, window: Some(3), ..plain([1, 8, 8], [2, 2, 8]) },
            packed([2, 7, 7], [4, 2, 10], 3),
            Attention { q_segments: vec![3; 6], ..plain([1, 6, 6], [2, 1, 4]) },
        ];
        cases.iter().for_each(check);
    });
}

/// Widths of published models.
#[test]
fn a_few_queries_of_wide_heads() {
    on_gpu(|| {
        check(&plain([1, 1, 70], [4, 1, 64]));
        check(&plain([1, 2, 40], [8, 1, 128]));
        check(&plain([1, 1, 36], [2, 2, 256]));
    });
}

/// Caches so long that the keys of a row are divided among cubes, of which some see nothing.
#[test]
fn a_long_cache_is_read_in_parts() {
    on_gpu(|| {
        check(&plain([1, 1, 1030], [2, 1, 16]));
        check(&padded(plain([3, 1, 700], [4, 2, 8])));
        check(&Attention { window: Some(600), ..plain([1, 3, 1500], [6, 1, 8]) });
        check(&Attention { bidirectional: true, ..plain([1, 2, 515], [2, 1, 8]) });
    });
}
