//! `temper bench`: times a workload of fixed shape on random weights and ids, or matrix products alone.

use bench::Clock;
use serde_json::json;

use super::print;
use crate::args::BenchArgs;
use crate::failure::{Failure, Result};

/// Priority of the threads of `--beside`: that of programs which are started with `nice`.
#[cfg(target_os = "linux")]
const PRIORITY: i32 = 10;

pub(crate) fn run(args: &BenchArgs, clock: Clock) -> Result<()> {
    let device = kernels::device(&args.device)?;
    kernels::set_precision(bench::precision(&args.dtype, &args.device)?);
    for _ in 0..args.beside {
        start_busy_thread()?;
    }
    let mut line = if args.workload == "products" {
        bench::products()
    } else {
        let mut workload = bench::Workload::named(&args.workload)?;
        if let Some(rows) = args.rows {
            workload = workload.with_rows(rows);
        }
        bench::run(workload, args.steps, clock, &device)?.to_json()
    };
    if args.beside > 0 {
        line["beside"] = json!(args.beside);
    }
    print(&format!("{line}\n"))
}

/// Starts a thread that computes until the process ends. Only Linux has priorities of single threads.
fn start_busy_thread() -> Result<()> {
    #[cfg(target_os = "linux")]
    {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _ = sender.send(rustix::process::setpriority_process(None, PRIORITY));
            loop {
                std::hint::black_box(());
            }
        });
        match receiver.recv() {
            Ok(Ok(())) => Ok(()),
            _ => {
                Err(Failure::input("--beside: the system refuses a lower priority", "leave it out"))
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    Err(Failure::input(
        "--beside needs Linux, which has priorities of single threads",
        "start the other program yourself with `nice`",
    ))
}
