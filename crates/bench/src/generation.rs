//! Sampling from the whole vocabulary with a KV cache, every row to its full length. Prompts are random ids.

use std::time::Instant;

use burn::tensor::Device;
use generate::Settings;
use model::CausalLm;
use seed::Rng;

use crate::{Clock, Report, Result, Workload};

/// Untimed repetitions at the start.
const N_WARM: usize = 1;
const N_REPETITIONS: usize = 3;

pub(crate) fn run(
    workload: Workload,
    n_steps: Option<usize>,
    clock: Clock,
    device: &Device,
) -> Result<Report> {
    let config = workload.config()?;
    let model = CausalLm::init(&config, 0, device);
    let model = match kernels::precision() {
        kernels::Precision::Bf16 => model::store_in_bf16(model, &|_| false),
        kernels::Precision::F32 | kernels::Precision::Tf32 => model,
    };
    let settings = Settings {
        max_new_tokens: workload.n_new,
        batch_rows: workload.rows,
        ..Settings::default()
    };
    let mut rng = Rng::new(0);
    let mut report = Report::new(workload);
    let n_repetitions = N_WARM + n_steps.unwrap_or(N_REPETITIONS);
    for repetition in 0..n_repetitions {
        let mut id = || (rng.f64() * config.vocab_size() as f64) as u32;
        let prompts: Vec<Vec<u32>> =
            (0..workload.rows).map(|_| (0..workload.length).map(|_| id()).collect()).collect();
        let start = Instant::now();
        generate::generate(&model, &prompts, &settings, repetition as u64, |_| ())?;
        report.add(repetition, N_WARM, start.elapsed().as_secs_f64(), clock);
    }
    report.note_memory(device);
    Ok(report)
}
