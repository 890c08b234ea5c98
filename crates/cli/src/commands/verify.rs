//! `temper verify`: replays reference vectors and prints one JSON line per replay, with a summary on stderr.

use std::path::PathBuf;

use evaluate::Outcome;

use super::print;
use crate::args::VerifyArgs;
use crate::failure::{Failure, Result};
use crate::render::progress::write_stderr;
use crate::render::table;

pub(crate) fn run(args: &VerifyArgs) -> Result<()> {
    let device = kernels::device(&args.device)?;
    let mut outcomes = Vec::new();
    let base = args.base.as_deref().map(plan::locate_argument).transpose()?;
    let verify = |path: &PathBuf| evaluate::verify_on_base(path, base.as_deref(), &device);
    for report in args.paths.iter().flat_map(verify) {
        print(&format!("{}\n", report.to_json()))?;
        outcomes.push(report.outcome());
    }
    let count = |outcome: Outcome| outcomes.iter().filter(|other| **other == outcome).count();
    let (n_wrong, n_refused) = (count(Outcome::Wrong), count(Outcome::Refused));
    let summary = format!(
        "{}: {} passed, {n_wrong} with wrong numbers, {n_refused} refused",
        table::counted(outcomes.len() as u64, "reference"),
        count(Outcome::Passed),
    );
    if n_wrong > 0 {
        let hint = "the lines above name the quantities that exceed their tolerance";
        return Err(Failure::input(summary, hint).during_run());
    }
    if n_refused > 0 {
        return Err(Failure::input(summary, "the lines above have the reason, in `error`"));
    }
    write_stderr(&format!("{summary}\n"));
    Ok(())
}
