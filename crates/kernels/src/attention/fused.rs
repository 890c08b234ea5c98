//! Attention on the CPU: from burn's tensors to heads in slices, and into the graph.
//!
//! It keeps its inputs, its output and one number a row of scores; nothing of the size of the scores.

use burn::backend::TensorMetadata;
use burn::tensor::{Shape, Tensor};
use burn_flex::FlexTensor;

use super::backward::{Gradients, Kept, backward};
use super::forward::{Problem, forward};
use super::heads::{HeadView, Rope, Strides, dense_heads};
use super::{AttentionMask, Heads};
use crate::autodiff::{self, Cpu, InputGradients, Op, record};
use crate::buffer::{Shared, filled};
use crate::flex;
use crate::precision::{Precision, precision};

/// The tensors that hold queries, keys and values.
#[derive(Clone, Debug)]
// A handful live at a time: what they take on the stack does not matter.
#[allow(clippy::large_enum_variant)]
enum Source {
    /// All side by side.
    Packed(FlexTensor),
    /// Each its own, `[b, t, n, k]`.
    Apart([(FlexTensor, Strides); 3]),
}

#[derive(Clone, Debug)]
struct Attention {
    source: Source,
    rope: Option<(FlexTensor, FlexTensor)>,
    mask: AttentionMask,
    heads: Heads,
    b: usize,
    t: usize,
    s: usize,
    /// The factor of the scores, and the precision of products.
    measure: (f32, Precision),
    out: FlexTensor,
    log_sums: FlexTensor,
}

pub(super) fn fits(x: &[&Tensor<4>]) -> bool {
    x.iter().all(|x| autodiff::fits(x))
}

/// q `[b, t, h, k]`, k and v `[b, s, g, k]` → `[b, t, h, k]`.
pub(super) fn attention(
    [q, key, value]: [Tensor<4>; 3],
    mask: &AttentionMask,
    scale: f64,
) -> Tensor<4> {
    let [b, t, h, k] = q.dims();
    let [_, s, g, _] = key.dims();
    let inputs = [q, key, value].map(Cpu::new);
    let apart = inputs.each_ref().map(|input| dense_heads(input.value().clone()));
    let [q, key, value] = &inputs;
    let heads = Heads { h, g, k };
    let source = Source::Apart(apart);
    let shape = Shape::new([b, t, h, k]);
    run(source, None, mask, heads, (b, t, s), scale, shape, &[q, key, value]).into_tensor()
}

/// `[b, t, (h + 2g) · k]` → `[b, t, h · k]`.
pub(super) fn packed(
    qkv: Tensor<3>,
    heads: Heads,
    rope: Option<(Tensor<3>, Tensor<3>)>,
    mask: &AttentionMask,
    scale: f64,
) -> Tensor<3> {
    let [b, t, _] = qkv.dims();
    let qkv = Cpu::new(qkv);
    let rope = rope.map(|(cos, sin)| {
        let constant = |x: Tensor<3>| Cpu::new(x.inner()).into_value().to_contiguous();
        (constant(cos), constant(sin))
    });
    let source = Source::Packed(qkv.value().to_contiguous());
    let shape = Shape::new([b, t, heads.h * heads.k]);
    run(source, rope, mask, heads, (b, t, t), scale, shape, &[&qkv]).into_tensor()
}

#[allow(clippy::too_many_arguments)]
fn run(
    source: Source,
    rope: Option<(FlexTensor, FlexTensor)>,
    mask: &AttentionMask,
    heads: Heads,
    (b, t, s): (usize, usize, usize),
    scale: f64,
    shape: Shape,
    inputs: &[&Cpu],
) -> Cpu {
    let Heads { h, k, .. } = heads;
    let scale = scale as f32;
    let keep = inputs.iter().any(|input| input.is_tracked());
    let mut log_sums = vec![0.0; if keep { b * h * t } else { 0 }];
    let measure = (scale, precision());
    let out = with_problem(&source, rope.as_ref(), mask, heads, (b, t, s), measure, |problem| {
        filled(b * t * h * k, |out| forward(problem, out, &mut log_sums))
    });
    let out = flex::tensor(out, shape);
    let kept = out.clone();
    record(inputs, out, || Attention {
        source,
        rope,
        mask: mask.clone(),
        heads,
        b,
        t,
        s,
        measure,
        out: kept,
        log_sums: flex::tensor(log_sums, [b * h * t]),
    })
}

fn with_problem<R>(
    source: &Source,
    rope: Option<&(FlexTensor, FlexTensor)>,
    mask: &AttentionMask,
    Heads { h, g, k }: Heads,
    (b, t, s): (usize, usize, usize),
    (scale, precision): (f32, Precision),
    run: impl FnOnce(&Problem<'_>) -> R,
) -> R {
    let rope = rope.map(|(cos, sin)| (flex::values(cos), flex::values(sin)));
    let rope = rope.as_ref().map(|(cos, sin)| Rope { cos, sin });
    let visible = mask.visible();
    assert!(visible.t == t && visible.s == s, "a mask of {t} queries and {s} keys");
    let problem = |q, key, value| Problem {
        b,
        t,
        s,
        h,
        g,
        k,
        scale,
        precision,
        q,
        key,
        value,
        rope,
        visible,
    };
    match source {
        Source::Packed(qkv) => {
            let values = flex::values(qkv);
            let width = (h + 2 * g) * k;
            let part = |start: usize| {
                let strides = Strides::packed(t, width, k, start * k);
                HeadView { values: &values, strides, k }
            };
            run(&problem(part(0), part(h), part(h + g)))
        }
        Source::Apart(parts) => {
            let [q, key, value] = parts.each_ref().map(|(x, strides)| HeadView {
                values: x.storage(),
                strides: *strides,
                k,
            });
            run(&problem(q, key, value))
        }
    }
}

impl Op for Attention {
    fn backward(self, d_out: FlexTensor, inputs: &mut InputGradients<'_>) {
        let Self { source, rope, mask, heads, b, t, s, measure, out, log_sums } = self;
        let Heads { h, g, k } = heads;
        let (out, d_out) = (flex::values(&out), flex::values(&d_out));
        let strides = Strides::packed(t, h * k, k, 0);
        let kept = Kept {
            out: HeadView { values: &out, strides, k },
            d_out: HeadView { values: &d_out, strides, k },
            log_sums: &flex::values(&log_sums),
        };
        let sizes = (b, t, s);
        let walk = |gradients: &Gradients<'_>| {
            with_problem(&source, rope.as_ref(), &mask, heads, sizes, measure, |problem| {
                backward(problem, &kept, gradients);
            });
        };
        match &source {
            Source::Packed(qkv) => {
                let width = (h + 2 * g) * k;
                let d_qkv = filled(b * t * width, |out| {
                    let out = Shared::new(out);
                    let part =
                        |start: usize| (out.clone(), Strides::packed(t, width, k, start * k));
                    walk(&Gradients { q: part(0), key: part(h), value: part(h + g) });
                });
                inputs.add(0, flex::tensor(d_qkv, qkv.shape()));
            }
            Source::Apart(_) => {
                let mut parts = [Vec::new(), Vec::new(), Vec::new()];
                let [d_q, d_key, d_value] = &mut parts;
                *d_q = filled(b * t * h * k, |d_q| {
                    *d_key = filled(b * s * g * k, |d_key| {
                        *d_value = filled(b * s * g * k, |d_value| {
                            let part = |out, t: usize, n: usize| {
                                (Shared::new(out), Strides::packed(t, n * k, k, 0))
                            };
                            walk(&Gradients {
                                q: part(d_q, t, h),
                                key: part(d_key, s, g),
                                value: part(d_value, s, g),
                            });
                        });
                    });
                });
                let shapes = [[b, t, h, k], [b, s, g, k], [b, s, g, k]];
                for (idx, (part, shape)) in parts.into_iter().zip(shapes).enumerate() {
                    inputs.add(idx, flex::tensor(part, shape));
                }
            }
        }
    }
}
