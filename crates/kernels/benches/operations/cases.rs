//! The operations of a training step and of a decoded token, with the minimum cost of each: multiplications and additions
//! of products, and the bytes of every input, output and gradient once.
//!
//! Shape legend: b batch, t time, n positions (b × t), d width, h heads, g key-value heads, k head
//! width, f inner width of the MLP, v vocabulary, r rank of adapters.

use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use kernels::{
    AdamwStep, Adapter, AttentionMask, GeluKind, Heads, LinearInput, LinearMap, Moments,
    WeightLayout,
};

/// Multiplications and additions, and bytes.
pub(crate) type Cost = (f64, f64);

/// One operation on one shape.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) shape: String,
    pub(crate) per_step: usize,
    pub(crate) forward: Cost,
    /// `None` if there is no backward pass.
    pub(crate) backward: Option<Cost>,
    /// Runs it forward; returns the flat output if it has a backward pass.
    pub(crate) run: Box<dyn FnMut() -> Option<Tensor<1>> + Send>,
}

/// A model and a batch.
#[derive(Clone, Copy)]
struct Shape {
    b: usize,
    t: usize,
    d: usize,
    n_layers: usize,
    heads: Heads,
    f: usize,
    v: usize,
    /// Rank of the adapters; with adapters the weights are frozen.
    rank: Option<usize>,
    tied: bool,
}

const SMALL: Shape = Shape {
    b: 8,
    t: 256,
    d: 256,
    n_layers: 6,
    heads: Heads { h: 8, g: 8, k: 32 },
    f: 768,
    v: 4096,
    rank: None,
    tied: false,
};

const LARGE: Shape = Shape {
    b: 2,
    t: 256,
    d: 576,
    n_layers: 30,
    heads: Heads { h: 9, g: 3, k: 64 },
    f: 1536,
    v: 49152,
    rank: Some(16),
    tied: true,
};

/// Every workload with its operations; operations that its steps do not contain count 0 times.
pub(crate) fn workloads() -> Vec<(&'static str, Vec<Case>)> {
    vec![
        ("pretrain7m", training(SMALL)),
        ("lora135m", training(LARGE)),
        ("decoding 7m", decoding(SMALL)),
        ("decoding 135m", decoding(LARGE)),
    ]
}

fn training(shape: Shape) -> Vec<Case> {
    let Shape { b, t, d, n_layers, heads: Heads { h, g, k }, f, .. } = shape;
    let fused_linear = |name, kind, d_in, outs: &[usize], residual| {
        fused_linear(shape, name, kind, (b, t), d_in, outs, residual, true)
    };
    let mut cases = vec![
        fused_linear("norm, q k v", Kind::RmsNorm, d, &[h * k, g * k, g * k], false),
        attention(shape),
        fused_linear("o, residual", Kind::Plain, h * k, &[d], true),
        fused_linear("norm, gate up", Kind::RmsNorm, d, &[f, f], false),
        fused_linear("SwiGLU, down, residual", Kind::SwiGlu, f, &[d], true),
        embedding(shape),
        final_norm(shape),
        cross_entropy(shape),
    ];
    let n_trained = shape.n_trained();
    cases.extend(optimizer(n_trained));
    cases.iter_mut().take(5).for_each(|case| case.per_step = n_layers);
    // Operations of other families, stages and batches.
    cases.extend(others(shape));
    cases
}

impl Shape {
    fn n_trained(&self) -> usize {
        let Self { d, heads: Heads { h, g, k }, f, v, n_layers, .. } = *self;
        let maps = [(d, h * k), (d, g * k), (d, g * k), (h * k, d), (d, f), (d, f), (f, d)];
        match self.rank {
            Some(rank) => n_layers * maps.iter().map(|(i, o)| rank * (i + o)).sum::<usize>(),
            None => {
                let of_block = maps.iter().map(|(i, o)| i * o).sum::<usize>() + 2 * d;
                (if self.tied { 1 } else { 2 }) * v * d + n_layers * of_block + d
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    RmsNorm,
    LayerNorm,
    GeluTanh,
    SwiGlu,
}

fn bytes(n_values: usize) -> f64 {
    (n_values * size_of::<f32>()) as f64
}

fn random<const D: usize>(dims: [usize; D], tracked: bool) -> Tensor<D> {
    let x = Tensor::random(dims, Distribution::Uniform(-1.0, 1.0), &Device::flex());
    if tracked { x.autodiff().require_grad() } else { x }
}

/// Like [`random`], on the autodiff device, as the weights of a trained model.
fn weight<const D: usize>(dims: [usize; D], trained: bool, grown: bool) -> Tensor<D> {
    let x = random(dims, false);
    if grown { x.autodiff().set_require_grad(trained) } else { x }
}

fn ids(n: usize, below: usize) -> Tensor<1, Int> {
    let ids: Vec<i32> = (0..n).map(|i| (i * 7919 % below) as i32).collect();
    Tensor::from_data(TensorData::new(ids, [n]), &Device::flex())
}

// An option, as in cases.
#[allow(clippy::unnecessary_wraps)]
fn flat<const D: usize>(x: Tensor<D>) -> Option<Tensor<1>> {
    let n: usize = x.dims().iter().product();
    Some(x.reshape([n]))
}

/// `grown`: with autodiff and, where the shape has a rank, with adapters.
#[allow(clippy::too_many_arguments)]
fn fused_linear(
    shape: Shape,
    name: &'static str,
    kind: Kind,
    (b, t): (usize, usize),
    d_in: usize,
    outs: &[usize],
    residual: bool,
    grown: bool,
) -> Case {
    let rank = shape.rank.filter(|_| grown);
    let (n, sum, trained) = (b * t, outs.iter().sum::<usize>(), shape.rank.is_none());
    let width = if kind == Kind::SwiGlu { 2 * d_in } else { d_in };
    let product = 2.0 * (n * d_in * sum) as f64;
    // Both factors of the adapter.
    let narrow: usize = rank.map_or(0, |rank| outs.iter().map(|out| rank * (d_in + out)).sum());
    let of_narrow = 2.0 * (n * narrow) as f64;
    let (read, weights, written) = (n * width, d_in * sum, n * sum);
    let added = if residual { written } else { 0 };
    let of_weights = if trained { product } else { 0.0 };
    let d_weights = if trained { weights } else { 0 };

    let x = random([b, t, width], grown);
    let norm = weight([d_in], trained, grown);
    let norm_bias = weight([d_in], trained, grown);
    let residual_bto = residual.then(|| random([b, t, sum], grown));
    let map = |out: &usize| LinearMap {
        weight: weight([*out, d_in], trained, grown).into(),
        layout: WeightLayout::OutIn,
        bias_o: None,
        adapter: rank.map(|rank| Adapter {
            a_ri: random([rank, d_in], true),
            b_or: random([*out, rank], true),
            scale: 2.0,
        }),
    };
    let maps: Vec<LinearMap> = outs.iter().map(map).collect();
    Case {
        name,
        shape: format!(
            "{n} × {d_in} → {sum}{}",
            rank.map_or(String::new(), |r| format!(", r {r}"))
        ),
        per_step: 0,
        forward: (product + of_narrow, bytes(read + weights + narrow + added + written)),
        backward: grown.then(|| {
            let flop = product + of_weights + 2.0 * of_narrow;
            (flop, bytes(written + read + weights + 2 * narrow + read + d_weights))
        }),
        run: Box::new(move || {
            let x = x.clone();
            let read = match kind {
                Kind::Plain => LinearInput::Plain(x),
                Kind::RmsNorm => {
                    LinearInput::RmsNorm { x_btd: x, weight_d: norm.clone(), eps: 1e-6 }
                }
                Kind::LayerNorm => {
                    let (weight_d, bias_d) = (norm.clone(), Some(norm_bias.clone()));
                    LinearInput::LayerNorm { x_btd: x, weight_d, bias_d, eps: 1e-5 }
                }
                Kind::GeluTanh => LinearInput::GeluTanh(x),
                Kind::SwiGlu => LinearInput::SwiGlu(x),
            };
            flat(kernels::fused_linear(read, &maps, residual_bto.clone()))
        }),
    }
}

fn attention(shape: Shape) -> Case {
    let Shape { b, t, heads, .. } = shape;
    let Heads { h, g, k } = heads;
    // Causal: half of all scores and the diagonal.
    let product = 2.0 * (b * h * k * t * (t + 1) / 2) as f64;
    let (qkv, out) = (b * t * (h + 2 * g) * k, b * t * h * k);
    let x = random([b, t, (h + 2 * g) * k], true);
    let angles = || random([b, t, k / 2], false);
    let (cos, sin) = (angles(), angles());
    let zeros = Tensor::<2, Int>::zeros([b, t], &Device::flex());
    let mask = AttentionMask::causal(zeros.clone(), zeros);
    Case {
        name: "rotation, attention",
        shape: format!("{b} × {t}, {h} heads on {g} of {k}"),
        per_step: 0,
        forward: (2.0 * product, bytes(qkv + out)),
        backward: Some((5.0 * product, bytes(2 * qkv + 2 * out))),
        run: Box::new(move || {
            let rope = Some((cos.clone(), sin.clone()));
            flat(kernels::attention_packed(x.clone(), heads, rope, &mask, 0.125))
        }),
    }
}

fn embedding(shape: Shape) -> Case {
    let Shape { b, t, d, v, .. } = shape;
    let (n, trained) = (b * t, shape.rank.is_none());
    let table = weight([v, d], trained, true);
    let ids = ids(n, v).reshape([b, t]);
    Case {
        name: "embedding",
        shape: format!("{n} of {v} × {d}"),
        per_step: 1,
        forward: (0.0, bytes(2 * n * d)),
        // The gradient of the whole table is written, and the gathered rows are added.
        backward: trained.then(|| (0.0, bytes(v * d + 3 * n * d))),
        run: Box::new(move || flat(kernels::embedding(table.clone(), ids.clone()))),
    }
}

fn final_norm(shape: Shape) -> Case {
    let Shape { b, t, d, .. } = shape;
    let (x, norm) = (random([b, t, d], true), weight([d], shape.rank.is_none(), true));
    Case {
        name: "last norm",
        shape: format!("{} × {d}", b * t),
        per_step: 1,
        forward: (0.0, bytes(2 * b * t * d)),
        backward: Some((0.0, bytes(3 * b * t * d))),
        run: Box::new(move || flat(kernels::rms_norm(x.clone(), norm.clone(), 1e-6))),
    }
}

/// The forward pass computes the gradients; the backward pass scales them.
fn cross_entropy(shape: Shape) -> Case {
    let Shape { d, v, .. } = shape;
    let (n, trained) = (shape.b * shape.t, shape.rank.is_none());
    let product = 2.0 * (n * d * v) as f64;
    let n_products = if trained { 3.0 } else { 2.0 };
    let gradients = n * d + if trained { v * d } else { 0 };
    let hidden = random([n, d], true);
    let (head, targets) = (weight([v, d], trained, true), ids(n, v));
    Case {
        name: "head, loss, gradients",
        shape: format!("{n} × {d} → {v}"),
        per_step: 1,
        forward: (n_products * product, bytes(n * d + v * d + gradients)),
        backward: Some((0.0, bytes(2 * gradients))),
        run: Box::new(move || {
            let loss =
                kernels::linear_cross_entropy(hidden.clone(), head.clone(), targets.clone()).sum;
            Some(loss.mul_scalar(1.0 / 2048.0))
        }),
    }
}

fn optimizer(n_trained: usize) -> Vec<Case> {
    // About ten operations per element, none of them a product.
    let grad = random([n_trained], false);
    let mut kept = Some(random([n_trained], false));
    let mut moments = Moments::zeros_like(&grad);
    let (grad_of_norm, addend) = (grad.clone(), grad.clone());
    let mut sum = Some(random([n_trained], false));
    let shape = format!("{n_trained}");
    let step = AdamwStep {
        lr: 1e-4,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        step: 10,
        grad_scale: 0.5,
    };
    let case = |name, per_step, n_values, run| Case {
        name,
        shape: shape.clone(),
        per_step,
        forward: (0.0, bytes(n_values)),
        backward: None,
        run,
    };
    vec![
        case(
            "sum of squares",
            1,
            n_trained,
            Box::new(move || {
                std::hint::black_box(kernels::sums_of_squares(&[&grad_of_norm]));
                None
            }),
        ),
        case(
            "AdamW",
            1,
            7 * n_trained,
            Box::new(move || {
                let weight = kept.take()?;
                kept = Some(kernels::adamw_step(weight, grad.clone(), &mut moments, &step));
                None
            }),
        ),
        case(
            "accumulate",
            0,
            3 * n_trained,
            Box::new(move || {
                sum = Some(kernels::accumulate(sum.take(), addend.clone()));
                None
            }),
        ),
    ]
}

fn others(shape: Shape) -> Vec<Case> {
    let Shape { b, t, d, heads: Heads { h, k, .. }, f, v, .. } = shape;
    let n = b * t;
    let pointwise = |name, width: usize, n_read: usize, run| Case {
        name,
        shape: format!("{n} × {width}"),
        per_step: 0,
        forward: (0.0, bytes((n_read + 1) * n * width)),
        backward: Some((0.0, bytes((2 * n_read + 1) * n * width))),
        run,
    };
    let (gate, up) = (random([n, f], true), random([n, f], true));
    let x = [(); 4].map(|()| random([n, f], true));
    let [x_silu, x_tanh, x_exact, _] = x;
    let x_norm = random([b, t, d], true);
    let (norm, norm_bias) = (random([d], true), random([d], true));
    let x_rope = random([b, t, h, k], true);
    let (cos, sin) = (random([b, t, k / 2], false), random([b, t, k / 2], false));
    let (hidden, head) = (random([n, d], true), weight([v, d], false, true));
    let (hidden_alone, head_alone) = (random([n, d], false), random([v, d], false));
    let (targets, targets_alone) = (ids(n, v), ids(n, v));
    let product = 2.0 * (n * d * v) as f64;
    let (x_io, w_io) = (random([b, t, d], true), random([d, f], true));
    let x_lora = random([b, t, d], true);
    let y_lora = random([b, t, d], true);
    let (a_ri, b_or) = (random([16, d], true), random([d, 16], true));
    let narrow = 2.0 * (n * 16 * 2 * d) as f64;
    let gpt2 = |name, kind, d_in, d_out, residual| {
        fused_linear(shape, name, kind, (b, t), d_in, &[d_out], residual, true)
    };
    vec![
        gpt2("layer norm, up", Kind::LayerNorm, d, f, false),
        gpt2("GELU, down, residual", Kind::GeluTanh, f, d, true),
        pointwise(
            "swiglu",
            f,
            2,
            Box::new(move || flat(kernels::swiglu(gate.clone(), up.clone()))),
        ),
        pointwise("silu", f, 1, Box::new(move || flat(kernels::silu(x_silu.clone())))),
        pointwise(
            "gelu, tanh",
            f,
            1,
            Box::new(move || flat(kernels::gelu(x_tanh.clone(), GeluKind::Tanh))),
        ),
        pointwise(
            "gelu, exact",
            f,
            1,
            Box::new(move || flat(kernels::gelu(x_exact.clone(), GeluKind::Exact))),
        ),
        pointwise(
            "layer norm",
            d,
            1,
            Box::new(move || {
                let bias = Some(norm_bias.clone());
                flat(kernels::layer_norm(x_norm.clone(), norm.clone(), bias, 1e-5))
            }),
        ),
        Case {
            // The backward pass needs the angles and no input.
            backward: Some((0.0, bytes(2 * n * h * k))),
            ..pointwise(
                "rotation alone",
                h * k,
                1,
                Box::new(move || flat(kernels::rope(x_rope.clone(), cos.clone(), sin.clone()))),
            )
        },
        Case {
            name: "linear, [in, out]",
            shape: format!("{n} × {d} → {f}"),
            per_step: 0,
            forward: (2.0 * (n * d * f) as f64, bytes(n * d + d * f + n * f)),
            backward: Some((4.0 * (n * d * f) as f64, bytes(2 * n * d + 2 * d * f + n * f))),
            run: Box::new(move || flat(kernels::linear_io(x_io.clone(), w_io.clone(), None))),
        },
        Case {
            name: "add_lora",
            shape: format!("{n} × {d} → 16 → {d}"),
            per_step: 0,
            forward: (narrow, bytes(3 * n * d)),
            backward: Some((2.0 * narrow, bytes(3 * n * d))),
            run: Box::new(move || {
                let (a_ri, b_or) = (a_ri.clone(), b_or.clone());
                flat(kernels::add_lora(y_lora.clone(), x_lora.clone(), a_ri, b_or, 2.0))
            }),
        },
        Case {
            name: "head, loss alone",
            shape: format!("{n} × {d} → {v}"),
            per_step: 0,
            forward: (product, bytes(n * d + v * d)),
            backward: None,
            run: Box::new(move || {
                let (hidden, head) = (hidden_alone.clone(), head_alone.clone());
                Some(kernels::linear_cross_entropy(hidden, head, targets_alone.clone()).sum)
            }),
        },
        Case {
            name: "log-probabilities, entropy; frozen head",
            shape: format!("{n} × {d} → {v}"),
            per_step: 0,
            forward: (product, bytes(n * d + v * d)),
            backward: Some((2.0 * product, bytes(2 * n * d + v * d))),
            run: Box::new(move || {
                let (hidden, head) = (hidden.clone(), head.clone());
                let found = kernels::linear_logprobs(hidden, head, targets.clone(), 0.7);
                Some(found.logprobs_n + found.entropy_n)
            }),
        },
    ]
}

/// One token of 16 sequences with 80 positions each in the cache (the average from 32 to 128).
fn decoding(shape: Shape) -> Vec<Case> {
    let Shape { d, n_layers, heads: Heads { h, g, k }, f, v, .. } = shape;
    let (b, s) = (16, 80);
    let fused_linear = |name, kind, d_in, outs: &[usize], residual| {
        fused_linear(shape, name, kind, (b, 1), d_in, outs, residual, false)
    };
    let q = random([b, 1, h, k], false);
    let (key, value) = (random([b, s, g, k], false), random([b, s, g, k], false));
    let mask = AttentionMask::causal(
        Tensor::zeros([b, 1], &Device::flex()),
        Tensor::zeros([b, s], &Device::flex()),
    );
    let attention = Case {
        name: "attention, cached",
        shape: format!("{b} × {s}, {h} heads on {g} of {k}"),
        per_step: 0,
        forward: (4.0 * (b * h * s * k) as f64, bytes(2 * b * s * g * k + 2 * b * h * k)),
        backward: None,
        run: Box::new(move || {
            let (q, key, value) = (q.clone(), key.clone(), value.clone());
            flat(kernels::attention(q, key, value, &mask, 0.125))
        }),
    };
    let logits = random([b, v], false).reshape([b * v]);
    let mut cases = vec![
        fused_linear("norm, q k v", Kind::RmsNorm, d, &[h * k, g * k, g * k], false),
        attention,
        fused_linear("o, residual", Kind::Plain, h * k, &[d], true),
        fused_linear("norm, gate up", Kind::RmsNorm, d, &[f, f], false),
        fused_linear("SwiGLU, down, residual", Kind::SwiGlu, f, &[d], true),
        Case { per_step: 1, ..fused_linear("head", Kind::Plain, d, &[v], false) },
        Case {
            name: "exponentials",
            shape: format!("{b} × {v}"),
            per_step: 1,
            forward: (0.0, bytes(2 * b * v)),
            backward: None,
            run: Box::new(move || {
                kernels::with_host_values(&logits, |logits| {
                    for row in logits.chunks(v) {
                        std::hint::black_box(kernels::exponentials(row, 0.9));
                    }
                });
                None
            }),
        },
    ];
    cases.iter_mut().take(5).for_each(|case| case.per_step = n_layers);
    cases
}
