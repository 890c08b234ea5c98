//! Sampling of the next token from one position's logits: the filters of transformers, then a draw.
//!
//! The order is that of transformers' `_get_logits_processor`: repetition penalty, temperature, top-k, top-p, min-p. Sums
//! are f64; logits are f32, as in the reference.

use seed::Rng;

use crate::error::{Error, Result};

/// Number of candidates that top-p sorts at first; most borders are among them.
const FIRST_SORTED: usize = 256;
/// A bound on the relative error of [`kernels::exponentials`], with a wide margin, and small enough to skip most logarithms.
const SLACK: f64 = 1e-4;
/// Number of clocks that are drawn together.
const CLOCKS: usize = 32;
/// Larger than every exponential that is flushed to 0.
const TINY: f64 = 1e-37;

/// The least temperature that divides logits: below, quotients can overflow f32, and a draw is the most likely token anyway.
pub const LEAST_TEMPERATURE: f64 = 1e-4;

/// The choice of the next token. The default samples from the model's distribution without filters.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// The divisor of logits, at least [`LEAST_TEMPERATURE`].
    pub temperature: f64,
    /// Keeps the k most likely tokens, and those equal to the k-th.
    pub top_k: Option<usize>,
    /// Keeps the most likely tokens that together reach this probability, in (0, 1].
    pub top_p: Option<f64>,
    /// Keeps tokens with at least this fraction of the most likely token's probability, in [0, 1].
    pub min_p: Option<f64>,
    /// Positive logits of tokens already seen are divided by this, negative ones multiplied; 1 changes nothing.
    pub repetition_penalty: f64,
    /// Chooses the most likely token, the lowest id among equals. Of the filters, only the repetition penalty applies.
    pub greedy: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: 1.0,
            greedy: false,
        }
    }
}

impl Sampling {
    /// Greedy decoding without a penalty.
    pub fn greedy() -> Self {
        Self { greedy: true, ..Self::default() }
    }

    /// Checks the ranges of all values.
    pub fn check(&self) -> Result<()> {
        let range = |ok: bool, name, range, value: &dyn std::fmt::Display| {
            if ok { Ok(()) } else { Err(Error::Range { name, range, value: value.to_string() }) }
        };
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let unit = "between 0 and 1";
        let divides = self.temperature.is_finite() && self.temperature >= LEAST_TEMPERATURE;
        range(divides, "temperature", "at least 0.0001", &self.temperature)?;
        let penalty = self.repetition_penalty;
        range(positive(penalty), "repetition-penalty", "above 0", &penalty)?;
        if let Some(k) = self.top_k {
            range(k > 0, "top-k", "at least 1", &k)?;
        }
        if let Some(p) = self.top_p {
            range(p > 0.0 && p <= 1.0, "top-p", "above 0 and at most 1", &p)?;
        }
        if let Some(p) = self.min_p {
            range((0.0..=1.0).contains(&p), "min-p", unit, &p)?;
        }
        Ok(())
    }

    /// Filters logits in place: those of removed tokens become minus infinity.
    ///
    /// The repetition penalty applies to the ids in `seen` (prompt and completion without padding), once to each.
    pub fn filter(&self, logits: &mut [f32], seen: &[u32]) {
        if self.repetition_penalty != 1.0 {
            penalise(logits, seen, self.repetition_penalty as f32);
        }
        if self.greedy {
            return;
        }
        if self.temperature != 1.0 {
            let temperature = self.temperature as f32;
            for x in logits.iter_mut() {
                *x /= temperature;
            }
        }
        if let Some(k) = self.top_k {
            keep_top_k(logits, k);
        }
        if let Some(p) = self.top_p.filter(|&p| p < 1.0) {
            keep_top_p(logits, p);
        }
        if let Some(p) = self.min_p {
            keep_min_p(logits, p);
        }
    }

    /// The distribution that a token is drawn from, given raw logits.
    pub fn probabilities(&self, logits: &[f32], seen: &[u32]) -> Vec<f32> {
        let mut filtered = logits.to_vec();
        self.filter(&mut filtered, seen);
        softmax(&filtered)
    }

    /// Chooses a token from filtered logits; `None` where nothing finite is left.
    pub fn choose(&self, filtered: &[f32], rng: &mut Rng) -> Option<u32> {
        if self.greedy { argmax(filtered) } else { draw(filtered, rng) }
    }
}

/// The most likely id, the lowest among equals; `None` if a logit is NaN or none is finite.
pub fn argmax(logits: &[f32]) -> Option<u32> {
    let mut best: Option<(usize, f32)> = None;
    for (id, &x) in logits.iter().enumerate() {
        if x.is_nan() || x == f32::INFINITY {
            return None;
        }
        if x > best.map_or(f32::NEG_INFINITY, |(_, top)| top) {
            best = Some((id, x));
        }
    }
    best.map(|(id, _)| id as u32)
}

/// ln of the probability of `id` under `logits / temperature` without filters: the log-probability of PPO.
pub fn logprob(logits: &[f32], id: u32, temperature: f64) -> f32 {
    let weights = kernels::exponentials(logits, temperature);
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    let scaled = |x: f32| (x as f64 - top) / temperature;
    logits.get(id as usize).map_or(f32::NEG_INFINITY, |&x| (scaled(x) - weights.sum.ln()) as f32)
}

/// Softmax of one row; NaN everywhere if a logit is NaN.
fn softmax(logits: &[f32]) -> Vec<f32> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    let total: f64 = logits.iter().map(|&x| (x as f64 - top).exp()).sum();
    logits.iter().map(|&x| ((x as f64 - top).exp() / total) as f32).collect()
}

fn penalise(logits: &mut [f32], seen: &[u32], penalty: f32) {
    let mut ids = seen.to_vec();
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        if let Some(x) = logits.get_mut(id as usize) {
            *x = if *x < 0.0 { *x * penalty } else { *x / penalty };
        }
    }
}

fn keep_top_k(logits: &mut [f32], k: usize) {
    if k == 0 || k >= logits.len() {
        return;
    }
    let mut values = logits.to_vec();
    let (_, kth, _) = values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let kth = *kth;
    logits.iter_mut().filter(|x| **x < kth).for_each(|x| *x = f32::NEG_INFINITY);
}

/// Removes a token if those above it have a total probability of `p` already. The reference sorts in ascending order and
/// removes from below, so among equal logits the higher id counts as more likely. With many equal ones the reference's
/// order depends on its sort.
fn keep_top_p(logits: &mut [f32], p: f64) {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    let weight = |x: f32| (x as f64 - top).exp();
    let mut ranked: Vec<(f32, usize)> = Vec::with_capacity(logits.len());
    ranked.extend(logits.iter().enumerate().filter(|(_, x)| x.is_finite()).map(|(i, &x)| (x, i)));
    let wanted = p * ranked.iter().map(|&(x, _)| weight(x)).sum::<f64>();
    let down = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1));

    // Sorting a whole vocabulary is slower than a small model's forward pass, so a growing part is sorted.
    let (mut mass, mut n_kept, mut n_sorted) = (0.0, 0, 0);
    while mass < wanted && n_kept < ranked.len() {
        if n_kept == n_sorted {
            let n_next = (n_sorted * 8).max(FIRST_SORTED).min(ranked.len());
            let rest = &mut ranked[n_sorted..];
            if n_next - n_sorted < rest.len() {
                rest.select_nth_unstable_by(n_next - n_sorted, down);
            }
            rest[..n_next - n_sorted].sort_unstable_by(down);
            n_sorted = n_next;
        }
        mass += weight(ranked[n_kept].0);
        n_kept += 1;
    }
    for &(_, id) in &ranked[n_kept..] {
        logits[id] = f32::NEG_INFINITY;
    }
}

fn keep_min_p(logits: &mut [f32], p: f64) {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    logits.iter_mut().filter(|x| (**x as f64 - top).exp() < p).for_each(|x| *x = f32::NEG_INFINITY);
}

/// Draws an id with probability proportional to exp(logit), as the fastest of independent exponential clocks.
///
/// Every id has its own clock, filtered or not. A distribution that differs by rounding (the same sequence in another
/// batch) then rarely gives another token; with a cumulative sum all later borders would move.
fn draw(logits: &[f32], rng: &mut Rng) -> Option<u32> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    if !top.is_finite() || logits.iter().any(|x| x.is_nan()) {
        return None;
    }
    let weights = kernels::exponentials(logits, 1.0);
    let mut best: Option<(u32, f64)> = None;
    let mut uniforms = [0.0; CLOCKS];
    for (chunk, logits) in logits.chunks(CLOCKS).enumerate() {
        let uniforms = &mut uniforms[..logits.len()];
        rng.fill_f64(uniforms);
        let weights = &weights.values[chunk * CLOCKS..];
        // A clock is at least its uniform number, which rules out most ids without a logarithm.
        let can_win = |weight: f32, uniform: f64, fastest: f64| {
            (f64::from(weight) * (1.0 + SLACK)).max(TINY) >= fastest * uniform
        };
        let fastest = best.map_or(-1.0, |(_, fastest)| fastest);
        let any = uniforms
            .iter()
            .zip(weights)
            .fold(false, |any, (&uniform, &weight)| any | can_win(weight, uniform, fastest));
        if !any {
            continue;
        }
        for (idx, (&x, &uniform)) in logits.iter().zip(uniforms.iter()).enumerate() {
            let fastest = best.map_or(-1.0, |(_, fastest)| fastest);
            if x == f32::NEG_INFINITY || !can_win(weights[idx], uniform, fastest) {
                continue;
            }
            let clock = (1.0 - uniform).ln().abs();
            let speed = (f64::from(x) - top).exp() / clock;
            if speed > fastest {
                best = Some(((chunk * CLOCKS + idx) as u32, speed));
            }
        }
    }
    best.map(|(id, _)| id)
}
