//! The names of the workloads.

/// Every workload's name.
pub const NAMES: &[&str] = &[
    "pretrain7m",
    "reward7m",
    "long4096",
    "lora135m",
    "full135m",
    "gen7m",
    "gen135m",
    "ppo7m",
    "grpo7m",
    "gpt124m",
    "full1b",
    "lora1b",
    "gen1b",
];
