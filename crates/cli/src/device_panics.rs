//! Turns panics of a GPU into errors. When a device fails, burn panics, first on the thread of its worker.
//!
//! On the CPU no panic is caught: it is a bug of the program, and its text is needed.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex};

use burn::tensor::Device;
use kernels::{DeviceFailure, device_failure};
use plan::StagePlan;

use crate::failure::{Failure, Result};
use crate::render::table;

/// Runs the work of a stage. A failure of the device is returned as an error of the run.
pub(crate) fn run_stage<T>(
    stage: &StagePlan,
    name: &str,
    device: &Device,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if kernels::is_cpu(device) {
        return work();
    }
    let panics = match recorded(work) {
        Ok(outcome) => return outcome,
        Err(panics) => panics,
    };
    let budget = Budget {
        device: name,
        estimate: stage.cost.peak_bytes,
        in_use: in_use(device),
        stage: &stage.name,
        micro_batch: stage.micro_batch,
        sequence_length: stage.sequence_length,
    };
    Err(budget.failure(&device_failure(&panics)).during_run())
}

/// Runs other work on a device. Error messages have no estimate of a plan.
pub(crate) fn run<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    if name == "cpu" {
        return work();
    }
    recorded(work).unwrap_or_else(|panics| {
        let (message, hint) = other_failure(name, &device_failure(&panics));
        Err(Failure::input(message, hint).during_run())
    })
}

/// Runs `work`. If it panics, returns the texts of all panics without printing them.
fn recorded<T>(work: impl FnOnce() -> T) -> std::result::Result<T, Vec<String>> {
    let panics = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&panics);
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let text = info.payload_as_str().unwrap_or("a panic without a text").to_owned();
        if let Ok(mut panics) = sink.lock() {
            panics.push(text);
        }
    }));
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(before);
    let panics = panics.lock().map(|panics| panics.clone()).unwrap_or_default();
    outcome.map_err(|_| panics)
}

/// Bytes reserved by the device's allocator; none if the device no longer responds.
fn in_use(device: &Device) -> Option<u64> {
    let device = device.clone().inner();
    recorded(|| device.memory_pool_usage().map(|usage| usage.bytes_reserved)).ok().flatten()
}

/// Memory of a stage, and the keys that it depends on.
struct Budget<'a> {
    device: &'a str,
    estimate: u64,
    in_use: Option<u64>,
    stage: &'a str,
    micro_batch: usize,
    sequence_length: usize,
}

impl Budget<'_> {
    fn failure(&self, failure: &DeviceFailure) -> Failure {
        let DeviceFailure::OutOfMemory { requested } = failure else {
            let (message, hint) = other_failure(self.device, failure);
            return Failure::input(message, hint);
        };
        let requested = requested.map(|n| format!(": {} requested", table::bytes(n)));
        let in_use = self.in_use.map(|n| format!(", {} in use", table::bytes(n)));
        let Self { device, stage, micro_batch, sequence_length, .. } = self;
        let message = format!(
            "out of memory on `{device}` in `{stage}`{}{}; the plan's estimate is {}",
            requested.unwrap_or_default(),
            in_use.unwrap_or_default(),
            table::bytes(self.estimate)
        );
        let hint = format!(
            "lower {stage}.micro_batch (now {micro_batch}), which changes results only by rounding, or \
             {stage}.sequence_length (now {sequence_length}); `temper resume` continues from the last checkpoint"
        );
        Failure::input(message, hint)
    }
}

/// Message and hint for failures that no key of the recipe can prevent.
fn other_failure(device: &str, failure: &DeviceFailure) -> (String, String) {
    let (what, hint) = match failure {
        DeviceFailure::OutOfMemory { .. } => {
            let hint = "use fewer or shorter rows at a time".to_owned();
            return (format!("out of memory on `{device}`"), hint);
        }
        DeviceFailure::Compilation(text) => (
            format!("a kernel could not be compiled: {text}"),
            if device.starts_with("wgpu") {
                "compare the driver in `temper devices` with those in docs/wgpu.md"
            } else {
                "compare the versions in `temper devices` with those in docs/cuda.md"
            },
        ),
        DeviceFailure::Fault(text) => (
            format!("the device failed: {text}"),
            "`temper resume` continues from the last checkpoint",
        ),
        DeviceFailure::Other(text) => {
            (format!("the work stopped: {text}"), "this may be a bug in temper: please report it")
        }
    };
    (format!("`{device}`: {what}"), hint.to_owned())
}

#[cfg(test)]
mod tests {
    use kernels::{DeviceFailure, device_failure};

    use super::{Budget, other_failure, recorded};

    /// As in burn: the worker panics with the reason, and the thread that waits for it without one.
    #[test]
    fn panics_of_all_threads_are_recorded_and_the_hook_is_put_back() {
        let outcome = recorded(|| {
            let worker =
                std::thread::spawn(|| panic!("out of device memory allocating {} bytes", 7));
            worker.join().expect("a worker");
        });
        let panics = outcome.expect_err("it panicked");
        assert_eq!(panics.len(), 2);
        assert_eq!(device_failure(&panics), DeviceFailure::OutOfMemory { requested: Some(7) });
        assert_eq!(recorded(|| 3), Ok(3));
    }

    #[test]
    fn memory_that_ran_out_names_estimate_use_and_keys() {
        let mut budget = Budget {
            device: "cuda",
            estimate: 20_100_000_000,
            in_use: Some(79_000_000_000),
            stage: "sft",
            micro_batch: 8,
            sequence_length: 1024,
        };
        let out = |requested| DeviceFailure::OutOfMemory { requested };
        let failure = budget.failure(&out(Some(1_610_612_736)));
        insta::assert_snapshot!(failure.text());
        budget.in_use = None;
        let text = budget.failure(&out(None)).text();
        assert!(
            text.starts_with(
                "error: out of memory on `cuda` in `sft`; the plan's estimate is 20.10 GB\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn other_failures_say_what_the_device_said() {
        let (message, hint) =
            other_failure("cuda:1", &DeviceFailure::Compilation("no mma.h".into()));
        assert_eq!(message, "`cuda:1`: a kernel could not be compiled: no mma.h");
        assert!(hint.contains("temper devices"), "{hint}");
        let (message, _) = other_failure("cuda", &DeviceFailure::Fault("poisoned".into()));
        assert_eq!(message, "`cuda`: the device failed: poisoned");
        let (.., hint) = other_failure("cuda", &DeviceFailure::Other("index".into()));
        assert!(hint.contains("report"), "{hint}");
    }
}
