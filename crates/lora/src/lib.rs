//! LoRA: adapters attached to a model, merged into it, read and written as PEFT directories.
//!
//! The mathematics of a layer stands in nn; which layers, which values and which files is decided
//! here. What would change a result and is not supported is refused by name. The crate deliberately
//! trains nothing and knows no recipe.
//!
//! Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"; Kalajdzievski 2023, "A Rank
//! Stabilization Scaling Factor for Fine-Tuning with LoRA".

mod attach;
mod error;
mod merge;
mod peft;

pub use arch::{AdapterError, LoraConfig, Targets};
pub use attach::{Adapted, adapter_names, attach, train_adapters_only, without_dropout};
pub use error::{Error, Result};
pub use merge::{Removed, detach, merge, unmerge};
pub use peft::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, PREFIX, Peft, export, load, write_weights};
