//! Several replicas of a stage in one process: a plain thread for each, one outcome.
//!
//! It deliberately knows no stage and no loop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use burn::module::Module;
use burn::tensor::Device;

use crate::collective::{Collective, InProcess, Nccl, SingleReplica};
use crate::parameters::fingerprints;
use crate::{Context, Error, Event, Outcome, Result, Silent, StopFlag};

/// Runs a stage on every device of `devices` at once, a replica on each; `context` is what the first of them gets. On one
/// device it runs as it always does.
///
/// The same device may stand there several times, where that is the processor's. If a replica fails, all end, and the
/// error is that of the first one that failed.
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
    let are_cards = others.iter().any(|device| device != first);
    if are_cards && kernels::has_nccl() {
        return together(context, devices, Nccl::replicas(devices), run);
    }
    if are_cards {
        let message = "NCCL is not there under the name libnccl.so: gradients are added up without it, which takes longer; \
                       a link to libnccl.so.2 in a folder of LD_LIBRARY_PATH is enough";
        context.progress.event(&Event::Warning { message: message.to_owned() });
    }
    together(context, devices, InProcess::replicas(devices.len()), run)
}

/// Not on threads of the pool: a replica that sleeps until the others come would take a thread from their work.
fn together<C: Collective, E: Send>(
    context: Context<'_>,
    devices: &[Device],
    replicas: Vec<C>,
    run: impl Fn(Context<'_>) -> std::result::Result<Outcome, E> + Sync,
) -> std::result::Result<Outcome, E> {
    let Context { plan, stage, run_dir, progress, stop, .. } = context;
    // One that the others were waiting for fails before those: its error is the cause of theirs.
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
        // Nobody ran: nothing was trained.
        (None, None) => Ok(Outcome::Stopped { step: 0 }),
    }
}

/// Refuses to go on where replicas no longer have the same weights, which only a fault explains.
///
/// `step` is the number of the update that was made, from 1. Looks at updates 1, 2, 4, 8 and so on, and from there at every
/// 1024th: a look reads all weights.
pub fn compare_replicas<M: Module>(replicas: &dyn Collective, model: &M, step: u64) -> Result<()> {
    if replicas.world_size() == 1 || !(step.is_power_of_two() || step.is_multiple_of(1024)) {
        return Ok(());
    }
    let halves = |hash: u64| [(hash >> 32) as f64, f64::from(hash as u32)];
    let mine = fingerprints(model).into_iter().flat_map(|print| halves(print.hash)).collect();
    let all = replicas.all_gather(mine)?;
    let first = all.first();
    match all.iter().position(|other| Some(other) != first) {
        Some(rank) => Err(Error::ReplicasDiffer { rank, step }),
        None => Ok(()),
    }
}
