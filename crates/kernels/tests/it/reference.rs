//! Every operation as plain loops in f64 after its paper's formula, and gradients by central differences.

/// Tensors of an operation, in its own order.
pub(crate) type Inputs = [Vec<f64>];

/// `x · weightᵀ` of rows `[n, i]` with `[o, i]`.
pub(crate) fn product(x: &[f64], weight_oi: &[f64], d_in: usize) -> Vec<f64> {
    let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
    x.chunks(d_in).flat_map(|x| weight_oi.chunks(d_in).map(move |w| dot(x, w))).collect()
}

/// The transpose of `[rows, columns]`.
pub(crate) fn transposed(x: &[f64], columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|column| x.iter().skip(column).step_by(columns).copied()).collect()
}

/// Adds `bias` to each row.
pub(crate) fn add_bias(rows: &mut [f64], bias: &[f64]) {
    for row in rows.chunks_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
    }
}

pub(crate) fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// `x + scale · (x·Aᵀ)·Bᵀ` is `sum(x, lora(…))`.
pub(crate) fn lora(x: &[f64], a_ri: &[f64], b_or: &[f64], d_in: usize, scale: f64) -> Vec<f64> {
    let rank = a_ri.len() / d_in;
    let narrow: Vec<f64> = product(x, a_ri, d_in).iter().map(|value| value * scale).collect();
    product(&narrow, b_or, rank)
}

pub(crate) fn rms_norm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let row = |x: &[f64]| -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        x.iter().zip(weight).map(|(x, w)| x / (mean + eps).sqrt() * w).collect()
    };
    x.chunks(weight.len()).flat_map(row).collect()
}

pub(crate) fn layer_norm(x: &[f64], weight: &[f64], bias: Option<&[f64]>, eps: f64) -> Vec<f64> {
    let row = |x: &[f64]| -> Vec<f64> {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let normed = x.iter().map(|x| (x - mean) / (variance + eps).sqrt());
        let bias = |idx: usize| bias.map_or(0.0, |bias| bias[idx]);
        normed.enumerate().map(|(idx, x)| x * weight[idx] + bias(idx)).collect()
    };
    x.chunks(weight.len()).flat_map(row).collect()
}

pub(crate) fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

pub(crate) fn swiglu(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter().zip(up).map(|(gate, up)| silu(*gate) * up).collect()
}

pub(crate) fn gelu_tanh(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
    0.5 * x * (1.0 + inner.tanh())
}

/// x·Φ(x); the error function by its Taylor series, good to 1e-12 for |x| < 4.
pub(crate) fn gelu_exact(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    let (mut power, mut sum) = (z, z);
    for n in 1..80 {
        power *= -z * z / n as f64;
        sum += power / (2 * n + 1) as f64;
    }
    0.5 * x * (1.0 + sum * 2.0 / std::f64::consts::PI.sqrt())
}

/// Pairs `(x[j], x[j + k / 2])` of `[rows, heads · k]`, rotated by the row's angles `[rows, k / 2]`.
pub(crate) fn rope(x: &[f64], cos: &[f64], sin: &[f64], heads: usize, k: usize) -> Vec<f64> {
    let half = k / 2;
    let mut out = vec![0.0; x.len()];
    for (idx, (out, x)) in out.chunks_mut(k).zip(x.chunks(k)).enumerate() {
        let of_row = idx / heads * half;
        for j in 0..half {
            let (cos, sin) = (cos[of_row + j], sin[of_row + j]);
            out[j] = x[j] * cos - x[j + half] * sin;
            out[j + half] = x[j + half] * cos + x[j] * sin;
        }
    }
    out
}

/// Sizes and mask of an attention.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    pub(crate) b: usize,
    pub(crate) t: usize,
    pub(crate) s: usize,
    pub(crate) h: usize,
    pub(crate) g: usize,
    pub(crate) k: usize,
    pub(crate) q_segments: Vec<i32>,
    pub(crate) k_segments: Vec<i32>,
    /// The segment of each position's prefix, or its own; empty without prefixes.
    pub(crate) prefixes: Vec<i32>,
    pub(crate) window: Option<usize>,
    pub(crate) scale: f64,
    /// Whether later keys are visible too.
    pub(crate) bidirectional: bool,
    /// Bound of the scores.
    pub(crate) soft_cap: Option<f64>,
}

/// A bias of the scores, `[rows, heads, t, s]` with 1 or all rows and heads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bias<'a> {
    pub(crate) values: &'a [f64],
    pub(crate) rows: usize,
    pub(crate) heads: usize,
}

impl Attention {
    /// Whether a key of a row is visible; `positions` are those of queries in their text.
    fn sees(&self, row: usize, query: usize, key: usize, positions: &[usize]) -> bool {
        let (q_at, k_at) = (row * self.t + query, row * self.s + key);
        let is_own = self.q_segments[q_at] == self.k_segments[k_at];
        if let Some(prefix) = self.prefixes.get(q_at) {
            // As many keys as queries; a window counts on from the prefix.
            let is_near = |window| positions[q_at] - positions[k_at] < window;
            let is_of_text = is_own || *prefix == self.k_segments[k_at];
            return is_of_text && key <= query && self.window.is_none_or(is_near);
        }
        let now = if self.bidirectional { query } else { query + self.s - self.t };
        is_own
            && (self.bidirectional || key <= now)
            && self.window.is_none_or(|window| now.abs_diff(key) < window)
    }

    /// The position of each query of a mask with prefixes: those of its prefix and its own segment count.
    fn positions(&self) -> Vec<usize> {
        let position = |(at, prefix): (usize, &i32)| {
            let row = at / self.t * self.t;
            let count = |segment: i32, end: usize| {
                self.q_segments[row..end].iter().filter(|it| **it == segment).count()
            };
            let own = self.q_segments[at];
            let before = if *prefix == own { 0 } else { count(*prefix, at) };
            before + count(own, at)
        };
        self.prefixes.iter().enumerate().map(position).collect()
    }

    /// q `[b, t, h, k]`, key and value `[b, s, g, k]` → `[b, t, h, k]`.
    pub(crate) fn forward(&self, q: &[f64], key: &[f64], value: &[f64]) -> Vec<f64> {
        self.forward_with_bias(q, key, value, None)
    }

    /// As [`Self::forward`], the scores with a bias after their cap.
    pub(crate) fn forward_with_bias(
        &self,
        q: &[f64],
        key: &[f64],
        value: &[f64],
        bias: Option<Bias<'_>>,
    ) -> Vec<f64> {
        let Self { b, t, s, h, g, k, .. } = *self;
        let mut out = vec![0.0; b * t * h * k];
        let positions = self.positions();
        for (idx, out) in out.chunks_mut(k).enumerate() {
            let (row, query, head) = (idx / (t * h), idx / h % t, idx % h);
            let q = &q[idx * k..][..k];
            let at = |position: usize| ((row * s + position) * g + head / (h / g)) * k;
            let seen: Vec<usize> =
                (0..s).filter(|key| self.sees(row, query, *key, &positions)).collect();
            let score = |position: &usize| -> f64 {
                let key = &key[at(*position)..][..k];
                let score = q.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() * self.scale;
                let score = self.soft_cap.map_or(score, |cap| cap * (score / cap).tanh());
                let bias = bias.map_or(0.0, |bias| {
                    let of = row % bias.rows * bias.heads + head % bias.heads;
                    bias.values[(of * t + query) * s + position]
                });
                score + bias
            };
            let scores: Vec<f64> = seen.iter().map(score).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for (position, weight) in seen.iter().zip(&weights) {
                let value = &value[at(*position)..][..k];
                out.iter_mut().zip(value).for_each(|(out, value)| *out += weight / total * value);
            }
        }
        out
    }
}

/// Log-probabilities of the targets, then entropies; 0 in rows without a target.
pub(crate) fn logprobs(
    hidden: &[f64],
    weight: &[f64],
    targets: &[i32],
    temperature: f64,
) -> Vec<f64> {
    let d = hidden.len() / targets.len();
    let mut out = vec![0.0; 2 * targets.len()];
    for (row, target) in targets.iter().enumerate().filter(|(_, target)| **target >= 0) {
        let logits = product(&hidden[row * d..][..d], weight, d);
        let logits: Vec<f64> = logits.iter().map(|logit| logit / temperature).collect();
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
        let log_p = |logit: f64| logit - largest - sum.ln();
        out[row] = log_p(logits[*target as usize]);
        let of_one = |logit: &f64| -log_p(*logit).exp() * log_p(*logit);
        out[targets.len() + row] = logits.iter().map(of_one).sum();
    }
    out
}

/// The derivative of `Σ upstream · f(inputs)` by one element, by central differences.
///
/// In f64 with this step the truncation error and the rounding error are below 1e-8 of values about 1.
pub(crate) fn derivative(
    f: &dyn Fn(&Inputs) -> Vec<f64>,
    inputs: &Inputs,
    upstream: &[f64],
    (input, element): (usize, usize),
) -> f64 {
    const STEP: f64 = 3e-5;
    let at = |delta: f64| {
        let mut moved = inputs.to_vec();
        moved[input][element] += delta;
        f(&moved).iter().zip(upstream).map(|(out, up)| out * up).collect::<Vec<f64>>()
    };
    // Differences of elements, so that equal terms cancel before they are summed.
    let (up, down) = (at(STEP), at(-STEP));
    up.iter().zip(&down).map(|(up, down)| up - down).sum::<f64>() / (2.0 * STEP)
}

#[cfg(test)]
mod tests {
    use super::{derivative, gelu_exact, gelu_tanh};

    #[test]
    fn published_values_of_gelu() {
        for (x, want) in [(-2.0, -0.045_500_264), (1.0, 0.841_344_746), (2.0, 1.954_499_736)] {
            assert!((gelu_exact(x) - want).abs() < 1e-8, "{x}");
            assert!((gelu_tanh(x) - want).abs() < 1e-3, "{x}");
        }
    }

    #[test]
    fn central_differences_of_a_cube() {
        let cube = |x: &[Vec<f64>]| x[0].iter().map(|x| x.powi(3)).collect();
        let found = derivative(&cube, &[vec![5.0, 2.0]], &[7.0, 0.5], (0, 1));
        assert!((found - 6.0).abs() < 1e-8, "{found}");
    }
}
