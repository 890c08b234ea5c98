//! The number of threads that operations use: that of rayon's global pool.
//!
//! Results do not depend on it: borders of blocks are functions of shapes alone.

use kernels_cpu::AllThreads as _;
use rayon::prelude::*;

use crate::error::{Error, Result};

/// More than any known machine has; a larger number is a typo.
const MAX_THREADS: usize = 1024;

/// Sets the number of threads; call it before the first tensor operation.
pub fn set_threads(n: usize) -> Result<()> {
    if n == 0 || n > MAX_THREADS {
        return Err(Error::ThreadCount { given: n, max: MAX_THREADS });
    }
    if start(rayon::ThreadPoolBuilder::new().num_threads(n))? || n_threads() == n {
        // A second call with the same number is valid.
        return Ok(());
    }
    Err(Error::ThreadsFixed { given: n, running: n_threads() })
}

/// Starts the threads: as many as [`set_threads`] says, or one per core. Without this call the first operation starts them,
/// and panics if the system refuses.
pub fn start_threads() -> Result<()> {
    start(rayon::ThreadPoolBuilder::new()).map(|_| ())
}

/// Starts the global pool; false if it is running already.
fn start(builder: rayon::ThreadPoolBuilder) -> Result<bool> {
    let Err(error) = builder.build_global() else { return Ok(true) };
    // A pool that is running already is the one failure without a cause.
    match std::error::Error::source(&error) {
        None => Ok(false),
        Some(source) => Err(Error::Threads { reason: source.to_string() }),
    }
}

/// The number of threads that operations use.
pub fn n_threads() -> usize {
    rayon::current_num_threads()
}

/// `n` values, of which `fill` writes parts on all threads: it gets the index of a part's first value, which is even.
pub fn fill_parts(n: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    /// Large beside the cost of a task, small beside the caches.
    const PART: usize = 1 << 14;
    let mut values = vec![0.0; n];
    let parts = values.par_chunks_mut(PART).enumerate();
    parts.on_all_threads(|(idx, part)| fill(idx * PART, part));
    values
}

/// Calls `run` on a thread of the pool, and waits.
///
/// An operation of burn's that is called from another thread sends its work to the pool and sleeps, thousands of times per
/// second of decoding. Called from the pool it only shares the work.
pub fn on_pool<R: Send>(run: impl FnOnce() -> R + Send) -> R {
    kernels_cpu::as_caller(run)
}
