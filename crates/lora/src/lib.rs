//! LoRA: adapters attached to a model, merged into it, read and written as PEFT directories.
//!
//! The mathematics of a layer is in nn; this crate chooses layers, starting values and files. Settings of a PEFT
//! directory that change results and are not supported are refused by name.
//!
//! Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"; Kalajdzievski 2023, "A Rank
//! Stabilization Scaling Factor for Fine-Tuning with LoRA".

mod attach;
mod error;
mod merge;
mod method;
mod peft;

pub use arch::{AdapterError, LoraConfig, Targets};
pub use attach::{Adapted, adapter_names, attach, train_adapters_only, without_dropout};
pub use error::{Error, Result};
pub use merge::{Removed, detach, merge};
pub use peft::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, PREFIX, Peft, export, load, write_weights};
