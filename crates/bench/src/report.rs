//! The result of a benchmark as one JSON line. It has all times, so that other statistics than the median can be computed.

use burn::tensor::Device;
use serde_json::{Value, json};

use crate::workload::Kind;
use crate::{Clock, Workload};

/// The result of a benchmark.
#[derive(Clone, Debug)]
pub struct Report {
    workload: Workload,
    times: Vec<f64>,
    first_step_s: f64,
    /// Bytes that a GPU's allocator holds at the end. It returns no memory, so they are the peak.
    device_memory: Option<u64>,
}

impl Report {
    pub(crate) fn new(workload: Workload) -> Self {
        Self { workload, times: Vec::new(), first_step_s: 0.0, device_memory: None }
    }

    /// Records repetition number `idx`; the first `n_warm` are not timed.
    pub(crate) fn add(&mut self, idx: usize, n_warm: usize, seconds: f64, clock: Clock) {
        if idx == 0 {
            self.first_step_s = clock.seconds();
        }
        if idx >= n_warm {
            self.times.push(seconds);
        }
    }

    /// Records the memory of a GPU's allocator; nothing on the CPU.
    pub(crate) fn note_memory(&mut self, device: &Device) {
        let usage = device.clone().inner().memory_pool_usage();
        self.device_memory = usage.map(|usage| usage.bytes_reserved);
    }

    /// Seconds of each timed repetition, in order.
    pub fn times(&self) -> &[f64] {
        &self.times
    }

    /// Tokens per second at the median time; for `ppo7m` and `grpo7m`, episodes per second over all updates.
    pub fn rate(&self) -> f64 {
        let n = self.workload.n_counted() as f64;
        if self.workload.kind.counts_episodes() {
            return n * self.times.len() as f64 / self.times.iter().sum::<f64>();
        }
        median(&self.times).map_or(0.0, |seconds| n / seconds)
    }

    /// The line: workload, threads, dtype, `tokens_per_s` or `episodes_per_s`, times, `peak_rss_mb`, `first_step_s`; with
    /// `rows` and `comparable: false` if the number of rows is not the workload's own.
    pub fn to_json(&self) -> Value {
        let round = |x: f64, digits: i32| (x * 10_f64.powi(digits)).round() / 10_f64.powi(digits);
        let (unit, digits) = match self.workload.kind {
            Kind::Ppo | Kind::Grpo => ("episodes_per_s", 3),
            Kind::Pretrain | Kind::Lora | Kind::Reward | Kind::Generation => ("tokens_per_s", 1),
        };
        let mut line = json!({
            "workload": self.workload.name,
            "threads": kernels::n_threads(),
            "dtype": kernels::precision().name(),
            "times": self.times.iter().map(|time| round(*time, 4)).collect::<Vec<_>>(),
            "peak_rss_mb": peak_rss_mb(),
            "first_step_s": round(self.first_step_s, 2),
        });
        line[unit] = json!(round(self.rate(), digits));
        if !self.workload.is_comparable {
            line["rows"] = json!(self.workload.rows);
            line["comparable"] = json!(false);
        }
        if let Some(bytes) = self.device_memory {
            line["device_memory_mb"] = json!(bytes >> 20);
        }
        line
    }
}

fn median(times: &[f64]) -> Option<f64> {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    match times.as_slice() {
        [] => None,
        times if times.len() % 2 == 1 => times.get(middle).copied(),
        times => Some(f64::midpoint(*times.get(middle - 1)?, *times.get(middle)?)),
    }
}

/// The peak resident memory of the process; `None` if the system does not report it.
fn peak_rss_mb() -> Option<u64> {
    let status = fsio::read_text_capped("/proc/self/status", 64 << 10).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}
