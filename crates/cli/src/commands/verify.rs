//! `temper verify`: replays reference vectors and prints one JSON line per replay.

use std::io::Write as _;
use std::path::PathBuf;

use super::print;
use crate::args::VerifyArgs;
use crate::failure::{Failure, Result};

pub(crate) fn run(args: &VerifyArgs) -> Result<()> {
    let device = kernels::device(&args.device)?;
    let (mut n_replays, mut n_failed) = (0, 0);
    let base = args.base.as_deref().map(plan::locate_model).transpose()?;
    let verify = |path: &PathBuf| evaluate::verify_on_base(path, base.as_deref(), &device);
    for report in args.paths.iter().flat_map(verify) {
        print(&format!("{}\n", report.to_json()))?;
        n_replays += 1;
        n_failed += usize::from(!report.passed());
    }
    if n_failed > 0 {
        return Err(Failure::input(
            format!("{n_failed} of {n_replays} replays exceed their tolerance"),
            "the lines above name the quantities",
        )
        .during_run());
    }
    // A closed stderr is ignored.
    let summary = format!("{n_replays} of {n_replays} replays are within their tolerance\n");
    let _ = std::io::stderr().write_all(summary.as_bytes());
    Ok(())
}
