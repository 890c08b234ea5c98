//! Launches the replicas of a stage on threads of one process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use burn::tensor::Device;

use crate::collective::{Collective, InProcess, Nccl, SingleReplica};
use crate::{Context, Event, Outcome, Silent, StopFlag};

/// Runs a stage with one replica on each of `devices`; the first one gets `context`. A single device runs without replicas.
///
/// The CPU may be listed several times. If a replica fails, all exit, and the error is that of the first one that failed.
pub fn on_replicas<'a, E: Send>(
    context: Context<'a>,
    devices: &'a [Device],
    run: impl Fn(Context<'_>) -> std::result::Result<Outcome, E> + Sync,
) -> std::result::Result<Outcome, E> {
    let (first, others) = match devices {
        [] => return kernels::on_pool(|| run(context)),
        [device] => {
            return kernels::on_pool(|| {
                run(Context { device, replicas: &SingleReplica, ..context })
            });
        }
        [first, others @ ..] => (first, others),
    };
    let are_gpus = others.iter().any(|device| device != first);
    if are_gpus && kernels::has_nccl() {
        return together(context, devices, Nccl::replicas(devices), run);
    }
    if are_gpus {
        let message = "libnccl.so was not found: gradients are summed without NCCL, which is slower; a link to \
                       libnccl.so.2 in a directory of LD_LIBRARY_PATH is enough";
        context.progress.event(&Event::Warning { message: message.to_owned() });
    }
    together(context, devices, InProcess::replicas(devices.len()), run)
}

/// Runs replicas on threads outside the pool: a replica that waits for the others would block a pool thread.
fn together<C: Collective, E: Send>(
    context: Context<'_>,
    devices: &[Device],
    replicas: Vec<C>,
    run: impl Fn(Context<'_>) -> std::result::Result<Outcome, E> + Sync,
) -> std::result::Result<Outcome, E> {
    let Context { plan, stage, run_dir, progress, stop, .. } = context;
    // The replica that fails first causes the errors of those that wait for it.
    let (any_failed, cause) = (AtomicBool::new(false), Mutex::new(None));
    let run_one = |context: Context<'_>| {
        let outcome = run(context);
        let is_first = outcome.is_err() && !any_failed.swap(true, Ordering::SeqCst);
        (outcome, is_first)
    };
    let outcome = thread::scope(|scope| {
        let mut replicas = replicas.into_iter().zip(devices);
        let (leader, device) = replicas.next()?;
        for (replica, device) in replicas {
            let (run_one, cause) = (&run_one, &cause);
            scope.spawn(move || {
                let progress = &mut Silent;
                let (stop, replicas) = (StopFlag::manual(), &replica);
                let context = Context { plan, stage, run_dir, device, progress, stop, replicas };
                if let (Err(error), true) = run_one(context) {
                    *cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            });
        }
        let replicas = &leader;
        Some(run_one(Context { plan, stage, run_dir, device, progress, stop, replicas }).0)
    });
    match (cause.into_inner().unwrap_or_else(PoisonError::into_inner), outcome) {
        (Some(error), _) => Err(error),
        (None, Some(outcome)) => outcome,
        // No devices, so no replica ran.
        (None, None) => Ok(Outcome::Stopped { step: 0 }),
    }
}
