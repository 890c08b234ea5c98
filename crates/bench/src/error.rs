//! Errors of benchmarks: an unknown name, or an error of a crate below.

use crate::names::NAMES;

/// A benchmark that cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No workload has this name.
    #[error("unknown workload: `{0}`")]
    UnknownWorkload(String),
    /// The device has no precision of this name.
    #[error("unknown precision: `{0}`")]
    UnknownPrecision(String),
    /// The device does not compute in the precision.
    #[error(transparent)]
    Kernels(#[from] kernels::Error),
    /// The model of a workload is invalid.
    #[error(transparent)]
    Arch(#[from] arch::Error),
    /// An adapter cannot be attached.
    #[error(transparent)]
    Lora(#[from] lora::Error),
    /// A training step failed.
    #[error(transparent)]
    Train(#[from] train::Error),
    /// Generation failed.
    #[error(transparent)]
    Generate(#[from] generate::Error),
    /// A PPO update failed.
    #[error(transparent)]
    Rl(#[from] rl::Error),
}

impl Error {
    /// A hint for the user.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownWorkload(_) => Some(format!("workloads are {}", NAMES.join(", "))),
            Self::UnknownPrecision(_) => {
                Some("precisions are f32 and bf16, and tf32 on CUDA".to_owned())
            }
            Self::Kernels(error) => error.hint(),
            Self::Arch(error) => error.hint(),
            Self::Lora(error) => error.hint(),
            Self::Train(error) => error.hint(),
            Self::Generate(error) => error.hint(),
            Self::Rl(error) => error.hint(),
        }
    }
}

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;
