//! LoRA: adapters attached to a model, merged into it, read and written as PEFT directories.
//!
//! The mathematics of a layer is in nn; arch applies PEFT's settings to a model; this crate has starting values and files.
//! Settings of a PEFT directory that change results and are not supported are refused by name.
//!
//! Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"; Kalajdzievski 2023, "A Rank
//! Stabilization Scaling Factor for Fine-Tuning with LoRA"; Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank
//! Adaptation"; Meng et al. 2024, "PiSSA: Principal Singular Values and Singular Vectors Adaptation"; Büyükakyüz 2024,
//! "OLoRA: Orthonormal Low-Rank Adaptation".

mod attach;
mod build;
mod decompose;
mod eigen;
mod error;
mod join;
mod merge;
mod peft;
mod plain;
mod sum;

pub use arch::{AdapterError, AdapterLayout, BiasTraining, LoraConfig, LoraInit, Targets};
pub use attach::{Adapted, adapter_names, attach, layout_of, train_adapters_only, without_dropout};
pub use error::{Error, Result};
pub use join::{is_joinable, join};
pub use merge::{Removed, dequantised, detach, is_packed, merge};
pub use peft::{
    ADAPTER_CONFIG, ADAPTER_WEIGHTS, PREFIX, Peft, export, load, peft_name, write_weights,
};
pub use plain::as_plain_lora;
pub use sum::weighted_sum;
