//! What can go wrong in a benchmark: a name, or a crate below.
//!
//! It deliberately adds no text of its own to what the crates below say.

use crate::NAMES;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No workload of that name.
    #[error("unknown workload: `{0}`")]
    UnknownWorkload(String),
    /// No precision of that name.
    #[error("unknown precision: `{0}`")]
    UnknownPrecision(String),
    /// The shape of a workload was refused.
    #[error(transparent)]
    Arch(#[from] arch::Error),
    /// An adapter could not be attached.
    #[error(transparent)]
    Lora(#[from] lora::Error),
    /// A step went wrong.
    #[error(transparent)]
    Train(#[from] train::Error),
    /// Generation went wrong.
    #[error(transparent)]
    Generate(#[from] generate::Error),
    /// An update went wrong.
    #[error(transparent)]
    Policy(#[from] rl::Error),
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownWorkload(_) => Some(format!("workloads are {}", NAMES.join(", "))),
            Self::UnknownPrecision(_) => {
                Some("precisions are f32 and bf16, and tf32 on a GPU".to_owned())
            }
            Self::Arch(error) => error.hint(),
            Self::Lora(error) => error.hint(),
            Self::Train(error) => error.hint(),
            Self::Generate(error) => error.hint(),
            Self::Policy(error) => error.hint(),
        }
    }
}

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;
