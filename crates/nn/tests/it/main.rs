//! Batches, tables and caches without a model around them.

use burn::tensor::{Device, Int, Tensor, TensorData};
use nn::{HeadLayout, KvCache, PAD_SEGMENT, RopeTables, TokenBatch, attend};
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

/// The whole text of two rows at once, or its tokens from `from` to `to` with a cache.
fn read(cache: Option<&mut KvCache>, segments: &[i32], from: usize, to: usize) -> Vec<f32> {
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
    match cache {
        None => {
            let segments = tokens.segments_bt;
            let mask = kernels::AttentionMask::new(segments.clone(), segments, None);
            values(&attend(&LAYOUT, qkv, None, &mask, None))
        }
        Some(cache) => {
            let mask = cache.advance(&tokens, None);
            values(&attend(&LAYOUT, qkv, None, &mask, Some(cache.layer(0))))
        }
    }
}

#[test]
fn a_cache_gives_what_the_whole_gives() {
    let segments = [0, 0, 0, 0, 0, 0, 0, PAD_SEGMENT, PAD_SEGMENT, 0, 0, 0, 0, 0];
    let whole = read(None, &segments, 0, 7);
    let width = 12;
    for borders in [vec![0, 7], vec![0, 1, 2, 3, 4, 5, 6, 7], vec![0, 3, 4, 7], vec![0, 5, 7]] {
        let mut cache = KvCache::new(1, 2, 9, 2, 3, &Device::flex().autodiff());
        assert!(cache.is_empty());
        for step in borders.windows(2) {
            let (from, to) = (step[0], step[1]);
            let got = read(Some(&mut cache), &segments, from, to);
            for row in 0..2 {
                let n = (to - from) * width;
                let want = &whole[(row * 7 + from) * width..(row * 7 + to) * width];
                assert_close("cache", &got[row * n..][..n], want, Tolerance::absolute(1e-6));
            }
        }
        assert_eq!((cache.len(), cache.capacity()), (7, 9));
    }
}

#[test]
#[should_panic(expected = "a cache of 9 positions: 10")]
fn a_full_cache_is_refused() {
    let mut cache = KvCache::new(1, 1, 9, 2, 3, &Device::flex());
    cache.advance(&TokenBatch::of_rows(&[0; 10], 1, &Device::flex()), None);
}
