//! Attention and rotary positions.

use burn::tensor::{Device, Tensor};
use kernels::{AttentionMask, Heads, attention, attention_packed, rope};
use testkit::{Tolerance, assert_close, values};

use crate::support::{cpu_against_generic, f32s, f64s, ints, numeric_gradient, random};

struct Case {
    b: usize,
    t: usize,
    s: usize,
    h: usize,
    g: usize,
    k: usize,
    q_segments: Vec<i32>,
    k_segments: Vec<i32>,
    window: Option<usize>,
}

impl Case {
    fn mask(&self) -> AttentionMask {
        let (b, t, s) = (self.b, self.t, self.s);
        AttentionMask::causal(ints(&self.q_segments, [b, t]), ints(&self.k_segments, [b, s]))
            .with_window(self.window)
    }

    fn sees(&self, row: usize, t: usize, s: usize) -> bool {
        let now = t + self.s - self.t;
        self.q_segments[row * self.t + t] == self.k_segments[row * self.s + s]
            && s <= now
            && self.window.is_none_or(|window| now - s < window)
    }

    fn tensors(&self, device: &Device) -> [Tensor<4>; 3] {
        [
            random([self.b, self.t, self.h, self.k], 1, device),
            random([self.b, self.s, self.g, self.k], 2, device),
            random([self.b, self.s, self.g, self.k], 3, device),
        ]
    }

    fn oracle(&self, q: &[f64], key: &[f64], value: &[f64], scale: f64) -> Vec<f64> {
        let Self { b, t: n_t, s: n_s, h, g, k, .. } = *self;
        let mut out = vec![0.0; b * n_t * h * k];
        for row in 0..b {
            for t in 0..n_t {
                for head in 0..h {
                    let group = head / (h / g);
                    let q = &q[((row * n_t + t) * h + head) * k..][..k];
                    let at = |s: usize| ((row * n_s + s) * g + group) * k;
                    let seen: Vec<usize> = (0..n_s).filter(|s| self.sees(row, t, *s)).collect();
                    let score = |s: usize| -> f64 {
                        q.iter().zip(&key[at(s)..][..k]).map(|(q, k)| q * k).sum::<f64>() * scale
                    };
                    let weights: Vec<f64> = seen.iter().map(|s| score(*s).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for (s, weight) in seen.iter().zip(&weights) {
                        for j in 0..k {
                            out[((row * n_t + t) * h + head) * k + j] +=
                                weight / total * value[at(*s) + j];
                        }
                    }
                }
            }
        }
        out
    }
}

fn cases() -> Vec<Case> {
    let packed = [vec![0, 0, 0, 1, 1, 2, 2], vec![-1, -1, 5, 5, 5, 5, -1]].concat();
    let plain = |b, t, s, h, g, k| Case {
        b,
        t,
        s,
        h,
        g,
        k,
        q_segments: vec![0; b * t],
        k_segments: vec![0; b * s],
        window: None,
    };
    let both = |segments: Vec<i32>, window| Case {
        q_segments: segments.clone(),
        k_segments: segments,
        window,
        ..plain(2, 7, 7, 4, 2, 6)
    };
    vec![
        plain(2, 7, 7, 4, 4, 6),
        plain(1, 7, 7, 6, 2, 4),
        plain(2, 5, 5, 3, 1, 8),
        plain(2, 1, 9, 4, 2, 6),
        plain(1, 3, 9, 4, 1, 6),
        both(packed.clone(), None),
        both(packed, Some(2)),
        Case { window: Some(3), ..plain(1, 8, 8, 2, 2, 4) },
        Case { window: Some(4), ..plain(2, 2, 9, 2, 1, 4) },
        // Padding on the left of the second row, read with a cache.
        Case {
            k_segments: [vec![0; 6], vec![-1, -1, 0, 0, 0, 0]].concat(),
            ..plain(2, 2, 6, 2, 2, 4)
        },
    ]
}

#[test]
fn attention_is_as_the_plain_loops_say() {
    for case in cases() {
        let [q, k, v] = case.tensors(&Device::flex());
        let want = case.oracle(&f64s(&q), &f64s(&k), &f64s(&v), 0.4);
        let got = attention(q, k, v, &case.mask(), 0.4);
        assert_eq!(got.dims(), [case.b, case.t, case.h, case.k]);
        assert_close("attention", &values(&got), &f32s(&want), Tolerance::absolute(2e-6));
    }
}

#[test]
fn views_are_read_as_what_they_show() {
    let case = &cases()[3];
    let [q, k, v] = case.tensors(&Device::flex());
    let want = values(&attention(q.clone(), k.clone(), v.clone(), &case.mask(), 0.4));
    let wider = |x: Tensor<4>| {
        let [b, s, g, w] = x.dims();
        let more = random([b, s + 3, g, w], 9, &Device::flex());
        more.slice_assign([0..b, 1..s + 1, 0..g, 0..w], x).slice([0..b, 1..s + 1, 0..g, 0..w])
    };
    let got = values(&attention(q, wider(k), wider(v), &case.mask(), 0.4));
    assert_close("views", &got, &want, Tolerance::absolute(1e-6));
}

#[test]
fn a_query_that_sees_nothing_gives_finite_values() {
    let case = Case {
        q_segments: vec![7, 0],
        k_segments: vec![0, 0],
        ..Case {
            b: 1,
            t: 2,
            s: 2,
            h: 2,
            g: 1,
            k: 4,
            q_segments: vec![],
            k_segments: vec![],
            window: None,
        }
    };
    let [q, k, v] = case.tensors(&Device::flex().autodiff());
    let q = q.require_grad();
    let out = attention(q.clone(), k, v, &case.mask(), 1.0);
    assert_eq!(values(&out)[..8], [0.0; 8]);
    assert!(values(&out).iter().all(|value| value.is_finite()));
    let gradient = q.grad(&out.sum().backward()).expect("a gradient");
    assert!(values(&gradient).iter().all(|value| value.is_finite()));
}

#[test]
fn gradients_of_attention() {
    let device = Device::flex().autodiff();
    for case in cases() {
        let weights = random([case.b, case.t, case.h, case.k], 4, &Device::flex());
        let [q, k, v] = case.tensors(&device).map(Tensor::require_grad);
        let out = attention(q.clone(), k.clone(), v.clone(), &case.mask(), 0.4);
        let gradients = (out * weights.clone()).sum().backward();
        let all = [q.clone().inner(), k.clone().inner(), v.clone().inner()];
        let weights = f64s(&weights);
        for (idx, x) in [q, k, v].into_iter().enumerate() {
            let want = numeric_gradient(&x.clone().inner(), |moved| {
                let mut parts = all.clone().map(|part| f64s(&part));
                parts[idx] = f64s(&moved);
                let out = case.oracle(&parts[0], &parts[1], &parts[2], 0.4);
                out.iter().zip(&weights).map(|(out, weight)| out * weight).sum()
            });
            let got = values(&x.grad(&gradients).expect("a gradient"));
            assert_close("gradient", &got, &want, Tolerance { absolute: 3e-4, of_largest: 3e-4 });
        }
    }
}

#[test]
fn rope_turns_pairs_of_halves() {
    let (b, t, h, k) = (2, 3, 2, 6);
    let x = random([b, t, h, k], 1, &Device::flex());
    let angles = random([b, t, k / 2], 2, &Device::flex());
    let (cos, sin) = (angles.clone().cos(), angles.clone().sin());
    let got = values(&rope(x.clone(), cos, sin));
    let (x, angles) = (f64s(&x), f64s(&angles));
    let mut want = vec![0.0; x.len()];
    for row in 0..b * t {
        for head in 0..h {
            let at = (row * h + head) * k;
            for j in 0..k / 2 {
                let (sin, cos) = angles[row * k / 2 + j].sin_cos();
                let (first, second) = (x[at + j], x[at + j + k / 2]);
                want[at + j] = first * cos - second * sin;
                want[at + j + k / 2] = second * cos + first * sin;
            }
        }
    }
    assert_close("rope", &got, &f32s(&want), Tolerance::absolute(1e-6));
}

#[test]
fn the_gradient_of_rope_turns_back() {
    let device = Device::flex().autodiff();
    let x = random([2, 3, 2, 6], 1, &device).require_grad();
    let angles = random([2, 3, 3], 2, &Device::flex());
    let upstream = random([2, 3, 2, 6], 3, &Device::flex());
    let out = rope(x.clone(), angles.clone().cos(), angles.clone().sin());
    let gradients = (out * upstream.clone()).sum().backward();
    let got = values(&x.grad(&gradients).expect("a gradient"));
    let want = values(&rope(upstream, angles.clone().cos(), angles.sin().neg()));
    assert_close("gradient", &got, &want, Tolerance::absolute(1e-6));
}

/// Longer than a block of queries and a chunk of keys, with borders inside of both.
fn long_cases() -> Vec<Case> {
    let plain = |b: usize, t: usize, s: usize, h, g, k| Case {
        b,
        t,
        s,
        h,
        g,
        k,
        q_segments: vec![0; b * t],
        k_segments: vec![0; b * s],
        window: None,
    };
    let texts = |b: usize, t: usize, length: usize| -> Vec<i32> {
        (0..b * t).map(|i| if i % t % 97 == 96 { -1 } else { (i % t / length) as i32 }).collect()
    };
    let packed = |b, t, length, window| Case {
        q_segments: texts(b, t, length),
        k_segments: texts(b, t, length),
        window,
        ..plain(b, t, t, 6, 2, 8)
    };
    vec![
        plain(1, 300, 300, 3, 1, 16),
        plain(2, 130, 130, 4, 4, 5),
        plain(1, 70, 333, 2, 1, 8),
        plain(5, 65, 65, 2, 2, 4),
        packed(2, 290, 40, None),
        packed(1, 290, 131, Some(50)),
        packed(1, 64, 9, Some(1)),
        // A query without any key, and keys that nobody sees.
        Case {
            q_segments: (0..150).map(|i| if i == 75 { 9 } else { 0 }).collect(),
            k_segments: (0..150).map(|i| i32::from(i % 50 == 10)).collect(),
            ..plain(1, 150, 150, 2, 1, 4)
        },
    ]
}

const CLOSE: Tolerance = Tolerance { absolute: 3e-6, of_largest: 6e-6 };

#[test]
fn tiles_agree_with_plain_tensor_operations() {
    for case in long_cases().into_iter().chain(cases()) {
        let Case { b, t, s, h, g, k, .. } = case;
        cpu_against_generic(&format!("{b} {t} {s} {h} {g} {k}"), CLOSE, || {
            let device = Device::flex().autodiff();
            let [q, key, v] = case.tensors(&device).map(Tensor::require_grad);
            let out = attention(q.clone(), key.clone(), v.clone(), &case.mask(), 0.4);
            let upstream = random([b, h, t, k], 4, &Device::flex()).swap_dims(1, 2);
            let found = values(&out);
            let gradients = (out * upstream).sum().backward();
            let of = |x: Tensor<4>| values(&x.grad(&gradients).expect("a gradient"));
            vec![found, of(q), of(key), of(v)]
        });
    }
}

#[test]
fn packed_heads_agree_with_plain_tensor_operations() {
    for case in long_cases().into_iter().chain(cases()).filter(|case| case.t == case.s) {
        let Case { b, t, h, g, k, .. } = case;
        // Rotation needs pairs.
        let rotated = if k % 2 == 0 { [false, true].as_slice() } else { &[false] };
        for rotated in rotated {
            cpu_against_generic(&format!("{b} {t} {h} {g} {k} {rotated}"), CLOSE, || {
                let device = Device::flex().autodiff();
                let qkv = random([b, t, (h + 2 * g) * k], 1, &device).require_grad();
                let angles = random([b, t, k / 2], 2, &Device::flex());
                let rope = rotated.then(|| (angles.clone().cos(), angles.sin()));
                let heads = Heads { h, g, k };
                let out = attention_packed(qkv.clone(), heads, rope, &case.mask(), 0.4);
                let upstream = random([b, t, h * k], 4, &Device::flex());
                let found = values(&out);
                let gradients = (out * upstream).sum().backward();
                vec![found, values(&qkv.grad(&gradients).expect("a gradient"))]
            });
        }
    }
}
