//! Errors of devices, threads and settings.
//!
//! Operations return no errors: a wrong shape is a mistake in the program and panics.

use crate::cuda_facts::CudaProblem;
use crate::precision::Precision;
use crate::wgpu_facts::WgpuProblem;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name of no device.
    #[error("unknown device: `{0}`")]
    UnknownDevice(String),
    /// A GPU that cannot be used.
    #[error("`{device}` cannot be used: {problem}")]
    Cuda {
        /// The device's name.
        device: String,
        /// The reason.
        problem: CudaProblem,
    },
    /// An adapter of wgpu that cannot be used.
    #[error("`{device}` cannot be used: {problem}")]
    Wgpu {
        /// The device's name.
        device: String,
        /// The reason.
        problem: WgpuProblem,
    },
    /// A precision that the device has no products in.
    #[error("`{device}` does not compute in {}", .precision.name())]
    PrecisionOfDevice {
        /// The device's name.
        device: String,
        /// The precision.
        precision: Precision,
    },
    /// A number of threads outside the accepted range.
    #[error("threads must be between 1 and {max}: `{given}`")]
    ThreadCount {
        /// The requested number.
        given: usize,
        /// The maximum.
        max: usize,
    },
    /// The thread pool already runs with another number of threads.
    #[error("the thread pool already runs with {running} threads: `{given}`")]
    ThreadsFixed {
        /// The requested number.
        given: usize,
        /// The pool's number.
        running: usize,
    },
    /// The system starts no more threads.
    #[error("cannot start threads: {reason}")]
    Threads {
        /// The system's error.
        reason: String,
    },
    /// The environment variable `TEMPER_KERNELS` has an unknown value.
    #[error("unknown value of TEMPER_KERNELS: `{0}`")]
    UnknownKernels(String),
}

impl Error {
    /// A suggestion for the user.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::UnknownDevice(_) => {
                "device is \"cpu\", \"cuda\", \"cuda:N\", \"wgpu\" or \"wgpu:N\"; `temper devices` lists what can be used"
            }
            Self::Cuda { problem, .. } => return Some(problem.hint()),
            Self::Wgpu { problem, .. } => return Some(problem.hint()),
            Self::PrecisionOfDevice { .. } => {
                "precisions are f32 everywhere, bf16 on the CPU and on CUDA, and tf32 on CUDA"
            }
            Self::ThreadCount { .. } => "leave `threads` out to use every core",
            Self::ThreadsFixed { .. } => {
                "set the number of threads before the first tensor is made"
            }
            Self::Threads { .. } => {
                "use fewer with `--threads N`, or raise the limit of processes (`ulimit -u`)"
            }
            Self::UnknownKernels(_) => {
                "TEMPER_KERNELS is \"cpu\" (the default: our own kernels, on a GPU too) or \"generic\" (burn's tensor operations)"
            }
        };
        Some(text.to_owned())
    }
}

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;
