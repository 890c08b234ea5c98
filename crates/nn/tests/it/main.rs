//! Batches, tables, caches, packed weights and attention between projections.

use burn::tensor::{Device, Int, Tensor, TensorData};
use nn::{
    HeadLayout, HeadTransforms, Input, KvCache, Linear, PAD_SEGMENT, PackedFormat, RmsNorm,
    RopeTables, TokenBatch, Weight, attend, cross_attend,
};
use testkit::{Tolerance, assert_close, values};

fn ints(x: &Tensor<2, Int>) -> Vec<i32> {
    x.to_data().convert::<i32>().iter().collect()
}

fn wave<const D: usize>(shape: [usize; D], factor: f32) -> Tensor<D> {
    let n = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| (i as f32 * factor).sin()).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

#[test]
fn padding_has_its_own_segment_and_counts_no_position() {
    let mask = [false, false, true, true, true, true, true, false, false, false];
    let batch = TokenBatch::padded(&[9; 10], &mask, 2, &Device::flex());
    assert_eq!(batch.dims(), [2, 5]);
    assert_eq!(ints(&batch.positions_bt), [0, 0, 0, 1, 2, 0, 1, 0, 0, 0]);
    let pad = PAD_SEGMENT;
    assert_eq!(ints(&batch.segments_bt), [pad, pad, 0, 0, 0, 0, 0, pad, pad, pad]);
    assert_eq!(batch.max_position, 2);
}

#[test]
fn a_batch_stands_off_the_autodiff_device() {
    let batch = TokenBatch::of_rows(&[1, 2, 3, 4], 2, &Device::flex().autodiff());
    assert!(!batch.ids_bt.is_autodiff());
    assert_eq!(ints(&batch.positions_bt), [0, 1, 0, 1]);
    assert_eq!(batch.max_position, 1);
}

#[test]
#[should_panic(expected = "a batch of 2 rows needs 3 values in each")]
fn slices_of_another_length_are_refused() {
    TokenBatch::new(&[1; 6], &[0; 6], &[0; 5], 2, 3, &Device::flex());
}

#[test]
fn tables_are_read_by_position() {
    let cos: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let sin: Vec<f32> = (0..12).map(|i| -(i as f32)).collect();
    let tables = RopeTables::new(cos, sin, 4, &Device::flex().autodiff());
    let positions = Tensor::from_data(TensorData::new(vec![3, 0, 0, 2], [2, 2]), &Device::flex());
    let (cos, sin) = tables.gather(positions, 3);
    assert_eq!(cos.dims(), [2, 2, 3]);
    let want = [9.0, 10.0, 11.0, 0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 6.0, 7.0, 8.0];
    assert_eq!(values(&cos), want);
    assert_eq!(values(&sin), want.map(|x| -x));
    assert!(!cos.is_autodiff());
}

const LAYOUT: HeadLayout = HeadLayout { n_heads: 4, n_kv_heads: 2, head_dim: 3, scale: 0.5 };

/// Attention over two rows at once, or over their tokens from `from` to `to` with a cache.
fn attended(
    cache: Option<&mut KvCache>,
    segments: &[i32],
    window: Option<usize>,
    (from, to): (usize, usize),
) -> Vec<f32> {
    let t = segments.len() / 2;
    let cut = |x: Tensor<4>| {
        let [b, _, h, k] = x.dims();
        x.slice([0..b, from..to, 0..h, 0..k])
    };
    let q = cut(wave([2, t, 4, 3], 1.3));
    let k = cut(wave([2, t, 2, 3], 0.7));
    let v = cut(wave([2, t, 2, 3], 1.9));
    let n = to - from;
    let qkv =
        Tensor::cat(vec![q.reshape([2, n, 12]), k.reshape([2, n, 6]), v.reshape([2, n, 6])], 2);
    let segments: Vec<i32> = segments.chunks(t).flat_map(|row| row[from..to].to_vec()).collect();
    let zeros = vec![0; 2 * n];
    let tokens = TokenBatch::new(&zeros, &zeros, &segments, 2, n, &Device::flex());
    let input = Input::from(&tokens);
    let transforms = HeadTransforms::default();
    let out = match cache {
        None => {
            let mask = input.causal_mask(None).with_window(window);
            attend(&LAYOUT, qkv, transforms, &mask, None)
        }
        Some(cache) => {
            let mask = input.causal_mask(Some(cache)).with_window(window);
            let mask = mask.over_last_keys(cache.n_keys(0));
            attend(&LAYOUT, qkv, transforms, &mask, Some(cache.layer(0)))
        }
    };
    values(&out)
}

#[test]
fn a_cache_gives_what_the_whole_gives() {
    let segments = [0, 0, 0, 0, 0, 0, 0, PAD_SEGMENT, PAD_SEGMENT, 0, 0, 0, 0, 0];
    let width = 12;
    let steps = [vec![0, 7], vec![0, 1, 2, 3, 4, 5, 6, 7], vec![0, 3, 4, 7], vec![0, 5, 7]];
    for (window, borders) in [None, Some(1), Some(3)]
        .into_iter()
        .flat_map(|w| steps.iter().map(move |borders| (w, borders)))
    {
        let whole = attended(None, &segments, window, (0, 7));
        let mut cache = KvCache::new(&[window], 2, 9, 2, 3, &Device::flex().autodiff());
        assert!(cache.is_empty());
        for step in borders.windows(2) {
            let (from, to) = (step[0], step[1]);
            let got = attended(Some(&mut cache), &segments, window, (from, to));
            for row in 0..2 {
                let n = (to - from) * width;
                let want = &whole[(row * 7 + from) * width..(row * 7 + to) * width];
                assert_close("cache", &got[row * n..][..n], want, Tolerance::absolute(1e-6));
            }
        }
        assert_eq!((cache.len(), cache.capacity()), (7, 9));
    }
}

/// A layer with a window keeps its last keys only; what is attended to has the bits of a cache of all keys, for one token
/// at a time, for pieces smaller and larger than the room that the layer has, and after rows were selected.
#[test]
fn a_window_bounds_the_room_of_a_layer_and_changes_no_bit() {
    const N: usize = 1400;
    let segments: Vec<i32> = (0..2 * N).map(|i| if i < 100 { PAD_SEGMENT } else { 0 }).collect();
    let pieces: [&[usize]; 4] = [&[1300, 1], &[700, 3, 650, 1], &[100, 40], &[900, 300, 17]];
    for window in [1, 20, 256, 257, 600] {
        for sizes in pieces {
            let room = |windows| KvCache::new(windows, 2, N, 2, 3, &Device::flex());
            let (mut bounded, mut full) = (room(&[Some(window)]), room(&[None]));
            let n_slots = (window + 512).min(N);
            let mut from = 0;
            for size in sizes.iter().cycle() {
                let to = (from + size).min(N);
                let got = attended(Some(&mut bounded), &segments, Some(window), (from, to));
                let want = attended(Some(&mut full), &segments, Some(window), (from, to));
                assert!(got.iter().map(|x| x.to_bits()).eq(want.iter().map(|x| x.to_bits())));
                assert_eq!(bounded.n_elements(), 2 * 2 * 2 * n_slots * 3, "window {window}");
                if from == 0 {
                    (bounded, full) = (bounded.select_rows(&[0, 1]), full.select_rows(&[0, 1]));
                }
                from = to;
                if from == N {
                    break;
                }
            }
            assert_eq!((bounded.len(), bounded.capacity()), (N, N));
        }
    }
}

#[test]
#[should_panic(expected = "a cache of 9 positions: 10")]
fn a_full_cache_is_refused() {
    let mut cache = KvCache::new(&[None], 1, 9, 2, 3, &Device::flex());
    cache.advance(TokenBatch::of_rows(&[0; 10], 1, &Device::flex()).segments_bt);
}

#[test]
#[should_panic(expected = "embeddings of 2 rows of 3 positions")]
fn embeddings_of_another_shape_are_refused() {
    let tokens = TokenBatch::of_rows(&[0; 6], 2, &Device::flex());
    let _ = Input::with_embeddings(&tokens, Tensor::zeros([2, 4, 5], &Device::flex()));
}

/// Heads of `x`, each normalised by hand: x / √(mean x² + ε) · weight.
fn normed_by_hand(x_bthk: &Tensor<4>, weight: &[f32]) -> Tensor<4> {
    let heads: Vec<f32> = values(x_bthk)
        .chunks(weight.len())
        .flat_map(|head| {
            let mean = head.iter().map(|x| x * x).sum::<f32>() / head.len() as f32;
            let factor = 1.0 / (mean + 1e-5).sqrt();
            head.iter().zip(weight).map(move |(x, w)| x * factor * w).collect::<Vec<_>>()
        })
        .collect();
    Tensor::from_data(TensorData::new(heads, x_bthk.dims()), &Device::flex())
}

#[test]
fn heads_are_normed_before_they_are_rotated() {
    let (b, t, k) = (2, 5, 6);
    let layout = HeadLayout { n_heads: 4, n_kv_heads: 2, head_dim: k, scale: 0.4 };
    let (q, key, value) =
        (wave([b, t, 4, k], 1.3), wave([b, t, 2, k], 0.7), wave([b, t, 2, k], 1.9));
    let joined = |x: Tensor<4>| {
        let [b, t, h, k] = x.dims();
        x.reshape([b, t, h * k])
    };
    let qkv = Tensor::cat(vec![joined(q.clone()), joined(key.clone()), joined(value.clone())], 2);
    let angles = wave([b, t, k / 2], 0.9);
    let rope = (angles.clone().cos(), angles.sin());
    let weights = [wave::<1>([k], 0.3) + 1.0, wave::<1>([k], 0.8) + 1.0];
    let norms = weights.each_ref().map(|weight| RmsNorm::new(weight.clone(), 1e-5));
    let mask = Input::from(&TokenBatch::of_rows(&[0; 10], 2, &Device::flex())).causal_mask(None);
    let transforms =
        HeadTransforms { norms: Some((&norms[0], &norms[1])), rope: Some(rope.clone()) };
    let got = values(&attend(&layout, qkv, transforms, &mask, None));

    let by_hand = |x: &Tensor<4>, weight: &Tensor<1>| {
        let normed = normed_by_hand(x, &values(weight));
        kernels::rope(normed, rope.0.clone(), rope.1.clone())
    };
    let (q, key) = (by_hand(&q, &weights[0]), by_hand(&key, &weights[1]));
    let want = values(&kernels::attention(q, key, value, &mask, layout.scale));
    assert_close("normed heads", &got, &want, Tolerance::absolute(2e-6));
}

#[test]
fn packed_weights_round_within_half_a_step() {
    // Not a multiple of a block's 64 elements; one block of zeros.
    let mut dense = values(&wave::<2>([13, 23], 0.37));
    dense[64..128].fill(0.0);
    let dense = Tensor::from_data(TensorData::new(dense, [13, 23]), &Device::flex());
    for (format, largest_step) in [(PackedFormat::Int8, 1.0 / 127.0), (PackedFormat::Nf4, 0.31)] {
        let weight = Weight::new(dense.clone());
        let packed = weight.pack(format);
        assert_eq!(packed.dims(), [13, 23]);
        assert!(packed.dense().is_none() && weight.dense().is_some());
        let (got, want) = (values(&packed.val()), values(&dense));
        let block = if format == PackedFormat::Int8 { 23 } else { 64 };
        // The scales of 4-bit blocks are rounded too, to a 64th of their largest distance from the mean.
        let of_scale = if format == PackedFormat::Int8 { 1e-6 } else { 2.0 / 64.0 };
        for (idx, (got, want)) in got.chunks(block).zip(want.chunks(block)).enumerate() {
            let largest = want.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
            let allowed = largest * largest_step / 2.0 + of_scale;
            for (got, want) in got.iter().zip(want) {
                assert!((got - want).abs() <= allowed, "{format:?} {idx}: {got} {want}");
            }
            let most = got.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
            assert!((most - largest).abs() <= of_scale, "{format:?} {idx}: {most} {largest}");
        }
    }
}

#[test]
fn a_packed_layer_is_the_layer_of_its_unpacked_weight() {
    let dense = wave([9, 70], 0.37);
    for format in [PackedFormat::Int8, PackedFormat::Nf4] {
        let mut packed = Linear::new(dense.clone(), Some(wave([9], 0.2)));
        packed.weight = packed.weight.pack(format);
        let plain = Linear::new(packed.weight.val(), Some(wave([9], 0.2)));
        let x = wave([2, 3, 70], 0.11);
        let want = values(&plain.forward(x.clone()));
        assert_eq!(values(&packed.forward(x.clone())), want);
        let original = values(&Linear::new(dense.clone(), Some(wave([9], 0.2))).forward(x));
        assert_ne!(want, original, "{format:?}: nothing was rounded");
    }
}

#[test]
fn cross_attention_joins_heads_of_another_sequence() {
    let (b, t, s, k) = (2, 3, 5, 4);
    let layout = HeadLayout { n_heads: 4, n_kv_heads: 2, head_dim: k, scale: 0.5 };
    let (key, value) = (wave::<4>([b, s, 2, k], 0.7), wave::<4>([b, s, 2, k], 1.9));
    let q = wave::<4>([b, t, 4, k], 1.3);
    let joined = |x: Tensor<4>| {
        let [b, n, h, k] = x.dims();
        x.reshape([b, n, h * k])
    };
    let segments = |n: usize, values: &[i32]| {
        Tensor::<2, Int>::from_data(TensorData::new(values.to_vec(), [b, n]), &Device::flex())
    };
    let k_segments = [0, 0, 0, PAD_SEGMENT, PAD_SEGMENT, 0, 0, 0, 0, 0];
    let mask =
        kernels::AttentionMask::bidirectional(segments(t, &[0; 6]), segments(s, &k_segments));
    let kv = Tensor::cat(vec![joined(key.clone()), joined(value.clone())], 2);
    let got = cross_attend(&layout, joined(q.clone()), kv, &mask);
    assert_eq!(got.dims(), [b, t, 16]);
    // By plain loops: softmax of the scaled products over the keys that are no padding.
    let (q, key, value) = (values(&q), values(&key), values(&value));
    let mut want = Vec::new();
    for (idx, q) in q.chunks(k).enumerate() {
        let (row, head) = (idx / (t * 4), idx % 4);
        let at = |position: usize| ((row * s + position) * 2 + head / 2) * k;
        let seen: Vec<usize> = (0..s).filter(|key| k_segments[row * s + key] == 0).collect();
        let weight = |position: &usize| {
            let dot: f32 = q.iter().zip(&key[at(*position)..][..k]).map(|(q, k)| q * k).sum();
            (dot * 0.5).exp()
        };
        let total: f32 = seen.iter().map(weight).sum();
        want.extend(
            (0..k).map(|j| seen.iter().map(|s| weight(s) / total * value[at(*s) + j]).sum::<f32>()),
        );
    }
    assert_close("cross-attention", &values(&got), &want, Tolerance::absolute(2e-6));
}
