//! Times of one operation, forward and backward.

use std::time::Instant;

use burn::tensor::{Device, Tensor};

use crate::cases::Case;

/// Warm-up runs.
const N_WARM: usize = 2;
const FEWEST: usize = 7;
const MOST: usize = 200;
/// Seconds after which no further run starts.
const ENOUGH: f64 = 1.0;

/// Measurement of one direction of an operation.
pub(crate) struct Pass {
    pub(crate) name: &'static str,
    pub(crate) shape: String,
    pub(crate) direction: &'static str,
    /// Number of calls per training step or decoded token.
    pub(crate) per_step: usize,
    pub(crate) flop: f64,
    pub(crate) bytes: f64,
    /// Median and minimum, in seconds.
    pub(crate) median: f64,
    pub(crate) fastest: f64,
}

pub(crate) fn passes(mut case: Case) -> Vec<Pass> {
    let begin = Instant::now();
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    let (mut n, mut n_out) = (0, 0);
    while n < N_WARM + FEWEST || (begin.elapsed().as_secs_f64() < ENOUGH && n < MOST) {
        let start = Instant::now();
        let out = (case.run)();
        let seconds = start.elapsed().as_secs_f64();
        if n >= N_WARM {
            forward.push(seconds);
        }
        n_out = out.as_ref().map_or(0, |out| out.dims()[0]);
        if let Some(out) = out.filter(|_| case.backward.is_some()) {
            let start = Instant::now();
            let gradients = out.backward();
            let seconds = start.elapsed().as_secs_f64();
            if n >= N_WARM {
                backward.push(seconds);
            }
            drop(gradients);
        }
        n += 1;
    }
    // Autodiff creates the initial gradient of ones; that time is subtracted.
    if !backward.is_empty() {
        let bare = bare_backward(n_out);
        for seconds in &mut backward {
            *seconds = (*seconds - bare).max(0.0);
        }
    }
    let Case { name, shape, per_step, .. } = case;
    let pass = |direction, (flop, bytes), mut seconds: Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        let (median, fastest) = (seconds[seconds.len() / 2], seconds[0]);
        Pass { name, shape: shape.clone(), direction, per_step, flop, bytes, median, fastest }
    };
    let mut passes = vec![pass("forward", case.forward, forward)];
    passes.extend(case.backward.map(|cost| pass("backward", cost, backward)));
    passes
}

/// The minimum time in seconds of an empty backward pass from an output of `n` values.
fn bare_backward(n: usize) -> f64 {
    let one = || {
        // A graph has one backward pass.
        let leaf = Tensor::<1>::zeros([n], &Device::flex().autodiff()).require_grad();
        let start = Instant::now();
        let gradients = leaf.backward();
        let seconds = start.elapsed().as_secs_f64();
        drop(gradients);
        seconds
    };
    (0..N_WARM + FEWEST).map(|_| one()).fold(f64::INFINITY, f64::min)
}
