//! What can go wrong when a device or a thread pool is asked for.
//!
//! The operations themselves have no error: their shapes are checked by burn, and a wrong one is a
//! mistake in the program.

use crate::CudaProblem;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is no device's.
    #[error("unknown device: `{0}`")]
    UnknownDevice(String),
    /// A GPU that cannot be used.
    #[error("`{device}` cannot be used: {problem}")]
    Cuda {
        /// The device's name.
        device: String,
        /// What is missing.
        problem: CudaProblem,
    },
    /// A number of threads that no machine can use.
    #[error("threads must be between 1 and {max}: `{given}`")]
    ThreadCount {
        /// What was asked for.
        given: usize,
        /// The most that is accepted.
        max: usize,
    },
    /// The pool was already running with another number of threads.
    #[error("the thread pool already runs with {running} threads: `{given}`")]
    ThreadsFixed {
        /// What was asked for.
        given: usize,
        /// What the pool has.
        running: usize,
    },
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::UnknownDevice(_) => {
                "device is \"cpu\", \"cuda\" or \"cuda:N\"; `temper devices` lists what can be used"
            }
            Self::Cuda { problem, .. } => return Some(problem.hint()),
            Self::ThreadCount { .. } => "leave `threads` out to use every core",
            Self::ThreadsFixed { .. } => {
                "set the number of threads before the first tensor is made"
            }
        };
        Some(text.to_owned())
    }
}

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;
