//! Weighs a plan's memory and disk space against those of this machine.

use plan::{Plan, StagePlan, Work};

use crate::failure::{Failure, Result};
use crate::render::table;

/// Refuses a plan that needs more memory or disk space than there is. `--force` is the user's way around it.
pub(super) fn check(plan: &Plan) -> Result<()> {
    let on_cpu = plan.device == "cpu";
    let free = if on_cpu { available_memory() } else { gpu_memory(&plan.device) };
    if let Some(free) = free
        && let Some(stage) = plan.stages.iter().max_by_key(|stage| stage.cost.peak_bytes)
        && stage.cost.peak_bytes > free
    {
        let (name, needed) = (&stage.name, table::bytes(stage.cost.peak_bytes));
        let (place, there) = if on_cpu {
            ("memory", format!("{} are free", table::bytes(free)))
        } else {
            ("the GPU's memory", format!("it has {}", table::bytes(free)))
        };
        return Err(Failure::input(
            format!("[{name}] needs {needed} of {place}, and {there}"),
            format!("{}; `--force` starts it anyway", advice(stage, free)),
        ));
    }
    let needed = needed_disk(plan);
    match free_disk(plan) {
        Some(free) if needed > free => Err(Failure::input(
            format!(
                "{}: the run needs {} of disk space, and {} are free",
                plan.paths.run_dir.display(),
                table::bytes(needed),
                table::bytes(free)
            ),
            "free some space, or lower `keep_checkpoints`; `--force` starts it anyway",
        )),
        _ => Ok(()),
    }
}

/// What to do where the system refuses memory to a stage.
pub(super) fn hint_if_refused(stage: &StagePlan) -> String {
    let planned = stage.cost.peak_bytes;
    let advice = advice(stage, planned / 2);
    format!(
        "[{}] was planned with {}: {advice}; then `temper resume` goes on from the last checkpoint",
        stage.name,
        table::bytes(planned)
    )
}

/// The key that makes a stage fit, with the memory that it then needs.
fn advice(stage: &StagePlan, free: u64) -> String {
    let mut micro_batch = stage.micro_batch;
    while micro_batch > 1 {
        micro_batch /= 2;
        let bytes = stage.cost.peak_bytes_of(stage.micro_batch, micro_batch);
        if bytes <= free {
            let bytes = table::bytes(bytes);
            return format!(
                "set `micro_batch = {micro_batch}` in [{}] (about {bytes})",
                stage.name
            );
        }
    }
    let smallest = table::bytes(stage.cost.peak_bytes_of(stage.micro_batch, 1));
    let lora = if stage.lora.is_none() { ", train an adapter (`lora`)" } else { "" };
    format!(
        "`micro_batch = 1` needs {smallest}: set `checkpointing = \"block\"`{lora}, or shorten the rows"
    )
}

/// Bytes that the checkpoints and models of all stages take.
pub(super) fn needed_disk(plan: &Plan) -> u64 {
    let of_stage = |stage: &StagePlan| {
        // There is one a step at most.
        let kept = (stage.keys.keep_checkpoints as u64).min(stage.max_steps.saturating_add(1))
            + u64::from(stage.keys.eval.is_some());
        let targets = match stage.kind.work() {
            Work::Rows { distill: Some(distill), .. } => distill.saved_bytes(),
            Work::Rows { .. } | Work::Rollouts(_) | Work::Groups(_) => 0,
        };
        let checkpoints = stage.cost.checkpoint_bytes.saturating_mul(kept);
        checkpoints.saturating_add(stage.cost.model_bytes).saturating_add(targets)
    };
    plan.stages.iter().map(of_stage).fold(0, u64::saturating_add)
}

/// Free bytes where the run is saved; `None` where the system does not say.
pub(super) fn free_disk(plan: &Plan) -> Option<u64> {
    plan.paths
        .run_dir
        .ancestors()
        .chain([std::path::Path::new(".")])
        .find_map(|dir| if dir.is_dir() { fsio::free_space(dir) } else { None })
}

/// All memory of a GPU in bytes; `None` where the driver does not list it, and on wgpu, which does not say. Other programs may
/// use a part of it.
fn gpu_memory(device: &str) -> Option<u64> {
    if !device.starts_with("cuda") {
        return None;
    }
    let ordinal = device.split_once(':').map_or(Some(0), |(_, ordinal)| ordinal.parse().ok())?;
    let facts = kernels::cuda_facts();
    facts.gpus.get::<usize>(ordinal).map(|gpu| gpu.memory)
}

/// Memory that the system can give to a new process, in bytes, or what is left of a container's limit if that is less; `None`
/// where it does not say.
pub(super) fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let number = |file: &str| -> Option<u64> {
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()?;
        text.trim().parse().ok()
    };
    let left =
        number("memory.max").zip(number("memory.current")).map(|(max, now)| max - now.min(max));
    Some(left.unwrap_or(u64::MAX).min(kilobytes * 1024))
}
