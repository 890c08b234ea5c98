//! Training and generation of fixed shapes on random weights and ids, timed on this machine.
//!
//! Benchmarks of other frameworks have the same shapes and report fields, so that two reports can be compared. Results
//! are returned, not stored.
//!
//! Shape legend: b batch, t time, n positions (b × t).

mod error;
mod generation;
mod grpo;
mod names;
mod ppo;
mod products;
mod report;
mod training;
mod workload;

use burn::tensor::Device;
use kernels::Precision;

pub use error::{Error, Result};
pub use names::NAMES;
pub use report::Report;
pub use workload::Workload;

use workload::Kind;

/// Runs a workload on a device (without autodiff) and times it. `steps` is the number of timed repetitions; `None` for the
/// workload's default.
pub fn run(
    workload: Workload,
    steps: Option<usize>,
    clock: Clock,
    device: &Device,
) -> Result<Report> {
    kernels::on_pool(|| match workload.kind {
        Kind::Generation => generation::run(workload, steps, clock, device),
        Kind::Ppo => ppo::run(workload, steps, clock, device),
        Kind::Grpo => grpo::run(workload, steps, clock, device),
        Kind::Pretrain | Kind::Lora | Kind::Reward => training::run(workload, steps, clock, device),
    })
}

/// The precision with a name, if the device of that name computes in it: a CPU has no tf32, wgpu only f32.
pub fn precision(name: &str, device: &str) -> Result<kernels::Precision> {
    let found = Precision::named(name).ok_or_else(|| Error::UnknownPrecision(name.to_owned()))?;
    kernels::check_precision(device, found)?;
    Ok(found)
}

/// Waits for a GPU to finish its queue, so that its work is timed; the CPU has no queue.
fn finish(device: &Device) {
    if !kernels::is_cpu(device) {
        // An error is reported where a result is read.
        let _ = device.clone().inner().sync();
    }
}

/// The rate of matrix products on this machine, as one JSON line: `workload`, `threads`, `dtype`, `gflop_per_s`.
pub fn products() -> serde_json::Value {
    let rate = products::gflop_per_second();
    serde_json::json!({
        "workload": "products",
        "threads": kernels::n_threads(),
        "dtype": kernels::precision().name(),
        "gflop_per_s": rate.round(),
    })
}

/// The start of the process, from which the time to the first step is measured.
#[derive(Clone, Copy, Debug)]
pub struct Clock(std::time::Instant);

impl Clock {
    /// A clock that starts now; call it first in `main`.
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn seconds(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
