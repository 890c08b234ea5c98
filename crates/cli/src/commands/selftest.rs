//! `temper selftest`: compares a device with the CPU and times it.
//!
//! Models are initialized from a seed and data is written to a temporary directory, so no other files are needed. Results
//! are printed as they are found; the exit code is 1 if one of them is wrong.

mod stages;

use std::path::PathBuf;

use bench::{Clock, Workload};
use evaluate::{Quantity, Report};

use super::print;
use crate::args::SelftestArgs;
use crate::failure::{Failure, Result};

/// Timed workloads with their numbers of repetitions.
const TIMED: [(&str, usize); 2] = [("pretrain7m", 4), ("gen7m", 1)];

pub(crate) fn run(args: &SelftestArgs, clock: Clock) -> Result<()> {
    let device = kernels::device(&args.device)?;
    let precision = bench::precision(&args.precision, &args.device)?;
    kernels::set_precision(precision);
    kernels::set_deterministic(args.deterministic);
    print(&format!("selftest of {} in {}\n", args.device, precision.name()))?;
    let scratch = Scratch::new()?;

    let mut wrong = Vec::new();
    let reports = kernels::on_pool(|| evaluate::selftest(&device, &scratch.0.join("models")));
    for report in &reports {
        print(&report_text(report))?;
        if !report.passed() {
            wrong.push(format!("{} of {}", report.kind, report.path));
        }
    }
    match stages::run(&scratch.0, args, precision.name()) {
        Ok(names) => print(&format!("stages   {}: trained\n", names.join(", ")))?,
        Err(failure) if failure.is_stop() => {
            print("stages   stopped by a signal\n")?;
            return Err(failure);
        }
        Err(failure) => {
            print(&format!("stages   FAILED\n{}", failure.text()))?;
            wrong.push("stages".to_owned());
        }
    }
    if !args.no_bench {
        for (name, n) in TIMED {
            let report = bench::run(Workload::named(name)?, Some(n), clock, &device)?;
            print(&format!("speed    {}\n", report.to_json()))?;
        }
    }
    if wrong.is_empty() {
        return print("passed\n");
    }
    Err(Failure::input(
        format!("`{}` in {} failed: {}", args.device, precision.name(), wrong.join(", ")),
        "please report it with the lines above and the output of `temper devices`",
    )
    .during_run())
}

/// One line per quantity.
fn report_text(report: &Report) -> String {
    let mut text = String::new();
    if let Some(error) = &report.error {
        text += &format!("{:<8} {}: FAILED, {error}\n", report.kind, report.path);
    }
    for quantity in &report.quantities {
        text += &format!("{:<8} {:<6} {}\n", report.kind, report.path, line(quantity));
    }
    text
}

fn line(quantity: &Quantity) -> String {
    let Quantity { name, largest_difference, tolerance, at, n_compared, .. } = quantity;
    let at = at.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
    let verdict = if quantity.passed() { "ok" } else { "FAILED" };
    format!(
        "{verdict:<7} {name}: largest difference {largest_difference:.1e}{at}, tolerance {tolerance:.1e} ({n_compared} values)"
    )
}

/// A temporary directory that is removed when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("temper-selftest-{}", std::process::id()));
        fsio::create_dir_all(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The system cleans its temporary directory.
        let _ = fsio::remove_dir_all(&self.0);
    }
}
