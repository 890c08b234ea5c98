//! How a step of a workload would run on more threads than this machine has: its loops, the time outside of them, and the
//! speedup that follows.
//!
//! `cargo run --release -p bench --example threads [WORKLOAD…] [--dtype bf16]`
//!
//! For each number of threads, a step divides its loops as for so many threads, but runs the tasks one after the other and
//! times each (`kernels::recorded_loops`). The model gives each task to the first thread that is free, and adds what opening
//! and closing a loop costs, which is measured on this machine. It assumes that every thread is as fast as the one here was,
//! with caches and memory to itself, so it finds what is not divided, and not what memory or a second socket would limit.

// An example prints.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use bench::{Clock, Workload};
use kernels::{AllThreads as _, Device, LoopTimes};
use rayon::prelude::*;

/// With more, the threads of the pool themselves, which look for work, are in the way on a small machine.
const N_THREADS: [usize; 5] = [1, 2, 4, 8, 16];
/// The number of threads for which loops are listed.
const DETAILED: usize = 16;
/// Seconds for opening and closing a loop that many threads have joined, at least: a line of the cache that each of them
/// writes once.
const LOOP_COST_PER_THREAD: f64 = 50e-9;

fn main() {
    kernels::configure_allocator();
    let mut workloads = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--dtype" {
            let name = arguments.next().expect("--dtype NAME");
            kernels::set_precision(bench::precision(&name, "cpu").expect("a precision"));
        } else {
            workloads.push(argument);
        }
    }
    if workloads.is_empty() {
        workloads.push("pretrain7m".to_owned());
    }
    let loop_cost = loop_cost();
    println!(
        "opening and closing a loop on {} threads: {:.2} µs",
        kernels::n_threads(),
        loop_cost * 1e6
    );
    for name in workloads {
        let workload = Workload::named(&name).expect("a workload");
        println!(
            "\n{name}\nthreads   loops   in loops   outside   uneven   opening   step   speedup   without opening"
        );
        let mut alone = f64::NAN;
        let mut uneven = Vec::new();
        for n_threads in N_THREADS {
            let step = Step::recorded(workload, n_threads);
            let opening = step.loops.len() as f64
                * if n_threads == 1 {
                    0.0
                } else {
                    loop_cost.max(LOOP_COST_PER_THREAD * n_threads as f64)
                };
            let even = step.in_loops() / n_threads as f64;
            let divided: f64 = step.loops.iter().map(|times| times.with_threads(n_threads)).sum();
            let seconds = step.outside + divided + opening;
            if n_threads == 1 {
                alone = seconds;
            }
            println!(
                "{n_threads:>7} {:>7} {:>7.1} ms {:>6.1} ms {:>5.1} ms {:>6.2} ms {:>5.0} ms {:>8.2} {:>8.2}",
                step.loops.len(),
                step.in_loops() * 1e3,
                step.outside * 1e3,
                (divided - even) * 1e3,
                opening * 1e3,
                seconds * 1e3,
                alone / seconds,
                alone / (seconds - opening),
            );
            if n_threads == DETAILED {
                uneven = unevenness(&step.loops);
            }
        }
        println!(
            "loops whose {DETAILED} threads wait longest\n   tasks   loops   in loops   uneven"
        );
        for (n_tasks, group) in uneven.iter().take(8) {
            println!(
                "{n_tasks:>8} {:>7} {:>7.1} ms {:>5.1} ms",
                group.n_loops,
                group.in_loops * 1e3,
                group.uneven * 1e3
            );
        }
    }
}

/// Loops of the same number of tasks.
#[derive(Default)]
struct Group {
    n_loops: usize,
    in_loops: f64,
    /// What they take longer on [`DETAILED`] threads than if their time could be divided at will.
    uneven: f64,
}

/// Loops grouped by their number of tasks, those first that lose most.
fn unevenness(loops: &[LoopTimes]) -> Vec<(usize, Group)> {
    let mut groups = std::collections::BTreeMap::<usize, Group>::new();
    for times in loops {
        let group = groups.entry(times.0.len()).or_default();
        group.n_loops += 1;
        group.in_loops += times.sum();
        group.uneven += times.with_threads(DETAILED) - times.sum() / DETAILED as f64;
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by(|a, b| b.1.uneven.total_cmp(&a.1.uneven));
    groups
}

/// The loops of a step, and the seconds outside of them.
struct Step {
    loops: Vec<LoopTimes>,
    outside: f64,
}

impl Step {
    /// The last of three timed steps, whose loops are those that a run of three has more than a run of two.
    fn recorded(workload: Workload, n_threads: usize) -> Self {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("threads");
        let run = |n_steps| {
            pool.install(|| {
                kernels::recorded_loops(|| {
                    bench::run(workload, Some(n_steps), Clock::start(), &Device::flex())
                        .expect("a run")
                })
            })
        };
        let (_, fewer) = run(2);
        let (report, mut loops) = run(3);
        let loops = loops.split_off(fewer.len());
        let in_loops: f64 = loops.iter().map(LoopTimes::sum).sum();
        let seconds = report.times().last().copied().unwrap_or(f64::NAN);
        Self { loops, outside: seconds - in_loops }
    }

    fn in_loops(&self) -> f64 {
        self.loops.iter().map(LoopTimes::sum).sum()
    }
}

/// The shortest time of a loop without work, on the threads of this machine, in seconds.
fn loop_cost() -> f64 {
    let empty = || {
        let start = Instant::now();
        for _ in 0..1000 {
            (0..kernels::n_threads()).into_par_iter().on_all_threads(|_| ());
        }
        start.elapsed().as_secs_f64() / 1000.0
    };
    kernels::on_pool(|| (0..20).map(|_| empty()).fold(f64::INFINITY, f64::min))
}
