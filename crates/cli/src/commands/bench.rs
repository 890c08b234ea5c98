//! `temper bench`: times a workload of fixed shape on random weights and ids, or matrix products alone.

use bench::Clock;

use super::print;
use crate::args::BenchArgs;
use crate::failure::Result;

pub(crate) fn run(args: &BenchArgs, clock: Clock) -> Result<()> {
    let device = kernels::device(&args.device)?;
    kernels::set_precision(bench::precision(&args.dtype, &device)?);
    if args.workload == "products" {
        return print(&format!("{}\n", bench::products()));
    }
    let mut workload = bench::Workload::named(&args.workload)?;
    if let Some(rows) = args.rows {
        workload = workload.with_rows(rows);
    }
    let report = bench::run(workload, args.steps, clock, &device)?;
    print(&format!("{}\n", report.to_json()))
}
