//! The times of a loop's tasks, for a model of more threads than a machine has.
//!
//! While it records, a loop runs its tasks one after the other on the thread that calls it. How long T threads would take
//! follows from the times: each task goes to the first thread that is free, as the team does it.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

static IS_ON: AtomicBool = AtomicBool::new(false);
static LOOPS: Mutex<Vec<LoopTimes>> = Mutex::new(Vec::new());

thread_local! {
    /// Whether this thread runs a task that is timed. Loops within it are part of the task.
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// The times of a loop's tasks, in seconds and in the order in which threads take them.
#[derive(Clone, Debug, PartialEq)]
pub struct LoopTimes(pub Vec<f64>);

impl LoopTimes {
    /// Seconds on one thread.
    pub fn sum(&self) -> f64 {
        self.0.iter().sum()
    }

    /// Seconds on `n_threads` threads that begin together, each of which takes the next task when it is done with one.
    /// Memory is as fast for each of them as it was for one.
    pub fn with_threads(&self, n_threads: usize) -> f64 {
        let mut busy_until = vec![0.0_f64; n_threads.max(1)];
        for task in &self.0 {
            if let Some(first_free) = busy_until.iter_mut().min_by(|a, b| a.total_cmp(b)) {
                *first_free += task;
            }
        }
        busy_until.into_iter().fold(0.0, f64::max)
    }
}

/// Calls `run` and returns the loops that it called on its thread, with the times of their tasks. Loops of other threads
/// that run meanwhile are among them. With a thread pool of T threads installed, loops are divided as for T threads.
pub fn recorded<R>(run: impl FnOnce() -> R) -> (R, Vec<LoopTimes>) {
    struct Stop;
    impl Drop for Stop {
        fn drop(&mut self) {
            IS_ON.store(false, Ordering::Relaxed);
        }
    }
    let stop = Stop;
    loops().clear();
    IS_ON.store(true, Ordering::Relaxed);
    let result = run();
    drop(stop);
    (result, std::mem::take(&mut *loops()))
}

/// Runs a loop and records it. False if nothing is recorded: nothing ran.
pub(super) fn for_each(n: usize, run: &(dyn Fn(usize) + Sync)) -> bool {
    if !IS_ON.load(Ordering::Relaxed) {
        return false;
    }
    if IS_INSIDE.replace(true) {
        (0..n).for_each(run);
        return true;
    }
    let timed = |task| {
        let start = Instant::now();
        run(task);
        start.elapsed().as_secs_f64()
    };
    let times = LoopTimes((0..n).map(timed).collect());
    IS_INSIDE.set(false);
    loops().push(times);
    true
}

fn loops() -> std::sync::MutexGuard<'static, Vec<LoopTimes>> {
    LOOPS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::LoopTimes;

    #[test]
    fn each_task_goes_to_the_first_thread_that_is_free() {
        let tasks = LoopTimes(vec![4.0, 1.0, 1.0, 1.0, 3.0]);
        let times: Vec<f64> = [1, 2, 3, 8].map(|n| tasks.with_threads(n)).to_vec();
        // Two threads: 4 + 3 beside 1 + 1 + 1, because the fifth task is taken after 3; three: 4, 1 + 1, 1 + 3.
        assert_eq!(times, [10.0, 6.0, 4.0, 4.0]);
        assert!((tasks.sum() - 10.0).abs() < 1e-12);
        assert!(LoopTimes(Vec::new()).with_threads(2).abs() < 1e-12);
    }
}
