//! Fixed workloads on random weights and ids, timed: what training and generation cost on this machine.
//!
//! Shapes and fields of the report are those that other stacks are measured with, so that two reports divide into a
//! ratio. It deliberately reads no data and keeps no result.
//!
//! Shape legend: b batch, t time, n positions (b × t).

mod error;
mod generation;
mod ppo;
mod products;
mod report;
mod training;
mod workload;

use burn::tensor::Device;
use kernels::Precision;

pub use error::{Error, Result};
pub use report::Report;
pub use workload::{NAMES, Workload};

use workload::Kind;

/// Runs a workload on a device (without autodiff) and measures it. `steps` counts the timed repetitions; none is the
/// workload's usual number.
pub fn run(
    workload: Workload,
    steps: Option<usize>,
    clock: Clock,
    device: &Device,
) -> Result<Report> {
    kernels::on_pool(|| match workload.kind {
        Kind::Generation => generation::run(workload, steps, clock, device),
        Kind::Ppo => ppo::run(workload, steps, clock, device),
        Kind::Pretrain | Kind::Lora | Kind::Reward => training::run(workload, steps, clock, device),
    })
}

/// The precision of that name, if the device has it: a processor has no tf32.
pub fn precision(name: &str, device: &Device) -> Result<kernels::Precision> {
    let found = kernels::Precision::named(name)
        .filter(|precision| *precision != Precision::Tf32 || !kernels::is_cpu(device));
    found.ok_or_else(|| Error::UnknownPrecision(name.to_owned()))
}

/// Waits until a device has done what it was given, so that a clock measures it; the CPU always has.
fn finish(device: &Device) {
    if !kernels::is_cpu(device) {
        // What went wrong is told where a result is read.
        let _ = device.clone().inner().sync();
    }
}

/// The rate of products on this machine, as one JSON line: `workload`, `threads`, `dtype`, `gflop_per_s`.
pub fn products() -> serde_json::Value {
    let rate = products::gflop_per_second();
    serde_json::json!({
        "workload": "products",
        "threads": kernels::n_threads(),
        "dtype": kernels::precision().name(),
        "gflop_per_s": rate.round(),
    })
}

/// When the process began, so that the time to the first step counts everything.
#[derive(Clone, Copy, Debug)]
pub struct Clock(std::time::Instant);

impl Clock {
    /// Starts now; call it first in `main`.
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn seconds(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
