//! The machine's rates: large products, and memory by the size of the working set.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use rayon::prelude::*;

/// Rows, inner width and columns of a product that is large enough for the best rate.
const PRODUCT: [usize; 3] = [2048, 1024, 1024];
const N_PRODUCTS: usize = 24;
/// Bytes per sweep over memory.
const SIZES: [usize; 9] =
    [256 << 10, 1 << 20, 4 << 20, 8 << 20, 16 << 20, 32 << 20, 64 << 20, 128 << 20, 512 << 20];

pub(crate) struct Machine {
    /// Multiplications and additions per second.
    flop_per_s: f64,
    /// Sizes in bytes, with bytes per second.
    memory: Vec<(f64, f64)>,
}

impl Machine {
    pub(crate) fn measured() -> Self {
        Self {
            flop_per_s: products(),
            memory: SIZES.iter().map(|size| (*size as f64, sweep(*size))).collect(),
        }
    }

    /// The minimum time of this work in seconds, and whether memory limits it.
    pub(crate) fn roofline(&self, flop: f64, bytes: f64) -> (f64, bool) {
        let distance = |size: f64| (size / bytes.max(1.0)).ln().abs();
        let nearest = self.memory.iter().min_by(|a, b| distance(a.0).total_cmp(&distance(b.0)));
        let of_memory = nearest.map_or(0.0, |(_, rate)| bytes / rate);
        let of_products = flop / self.flop_per_s;
        (of_memory.max(of_products), of_memory > of_products)
    }

    pub(crate) fn print(&self) {
        println!("{} threads", kernels::n_threads());
        println!("products: {:.0} GFLOP/s", self.flop_per_s / 1e9);
        for (size, rate) in &self.memory {
            println!("memory, {:>6.2} MiB: {:.1} GB/s", size / f64::from(1 << 20), rate / 1e9);
        }
    }
}

/// The rate of the fastest of several large products, after the clock rate has risen.
fn products() -> f64 {
    let [m, k, n] = PRODUCT;
    let random = |shape| Tensor::<2>::random(shape, Distribution::Default, &Device::flex());
    let (x, weight) = (random([m, k]), random([n, k]));
    let one = || {
        let start = Instant::now();
        let y = kernels::linear(x.clone(), weight.clone(), None);
        let seconds = start.elapsed().as_secs_f64();
        drop(y);
        seconds
    };
    let fastest = (0..N_PRODUCTS).map(|_| one()).fold(f64::INFINITY, f64::min);
    2.0 * (m * k * n) as f64 / fastest
}

/// Bytes per second of `a = b + s · c` over `size` bytes in total (McCalpin's triad), the fastest of several runs.
fn sweep(size: usize) -> f64 {
    let n = size / 3 / size_of::<f32>();
    let (mut a, b, c) = (vec![0.0_f32; n], vec![1.0_f32; n], vec![2.0_f32; n]);
    let part = n.div_ceil(kernels::n_threads());
    let mut fastest = f64::INFINITY;
    let begin = Instant::now();
    let mut rounds = 0;
    while rounds < 5 || (begin.elapsed().as_secs_f64() < 0.15 && rounds < 10_000) {
        let start = Instant::now();
        let parts = a.par_chunks_mut(part).zip(b.par_chunks(part).zip(c.par_chunks(part)));
        parts.for_each(|(a, (b, c))| {
            for (a, (b, c)) in a.iter_mut().zip(b.iter().zip(c)) {
                *a = b + 3.0 * c;
            }
        });
        fastest = fastest.min(start.elapsed().as_secs_f64());
        std::hint::black_box(&mut a);
        rounds += 1;
    }
    (3 * n * size_of::<f32>()) as f64 / fastest
}
