//! How many threads the operations use.
//!
//! Everything follows rayon's global pool. Results don't depend on the number of threads: borders
//! of blocks are functions of shapes alone.

use crate::{Error, Result};

/// More than any machine we know of has; a larger number is a typing slip.
const MAX_THREADS: usize = 4096;

/// Sets the number of threads; call it before the first tensor operation.
pub fn set_threads(n: usize) -> Result<()> {
    if n == 0 || n > MAX_THREADS {
        return Err(Error::ThreadCount { given: n, max: MAX_THREADS });
    }
    match rayon::ThreadPoolBuilder::new().num_threads(n).build_global() {
        Ok(()) => Ok(()),
        // A second call with the same number is no mistake.
        Err(_) if n_threads() == n => Ok(()),
        Err(_) => Err(Error::ThreadsFixed { given: n, running: n_threads() }),
    }
}

/// The number of threads that operations use.
pub fn n_threads() -> usize {
    rayon::current_num_threads()
}

/// Runs on a thread of the pool, and waits.
///
/// An operation that is called from elsewhere hands its work over and sleeps, thousands of times in a
/// second of decoding; called from the pool it only shares the work.
pub fn on_pool<R: Send>(run: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| run())
}
