//! Times of one operation, forward and backward.

use std::time::Instant;

use burn::tensor::{Device, Tensor};

use crate::cases::Case;

/// Runs that are not counted.
const N_WARM: usize = 2;
const FEWEST: usize = 7;
const MOST: usize = 200;
/// Seconds after which no further run begins.
const ENOUGH: f64 = 1.0;

/// One direction of an operation, measured.
pub(crate) struct Pass {
    pub(crate) name: &'static str,
    pub(crate) shape: String,
    pub(crate) direction: &'static str,
    /// How many of it a training step, or a decoded token, has.
    pub(crate) per_step: usize,
    pub(crate) flop: f64,
    pub(crate) bytes: f64,
    /// Median and fastest, in seconds.
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
    // The gradient that a backward pass starts with is made by autodiff, of ones: that is not counted.
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

/// Seconds that the backward pass of nothing takes at least, from an output of `n` values.
fn bare_backward(n: usize) -> f64 {
    let one = || {
        // A graph can be followed back once.
        let leaf = Tensor::<1>::zeros([n], &Device::flex().autodiff()).require_grad();
        let start = Instant::now();
        let gradients = leaf.backward();
        let seconds = start.elapsed().as_secs_f64();
        drop(gradients);
        seconds
    };
    (0..N_WARM + FEWEST).map(|_| one()).fold(f64::INFINITY, f64::min)
}
