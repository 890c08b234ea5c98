//! `launch.json` of a run directory: how a run was started, for `resume`, and on which day, for chat templates.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizer::Clock;

use crate::args::RecipeArgs;
use crate::failure::{Failure, Result};

/// Arguments of a run, which `resume` reads from the run directory.
pub(super) struct Launch {
    pub(super) recipe: PathBuf,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) set: Vec<(String, String)>,
    pub(super) limit: Option<u64>,
    pub(super) stage: Option<String>,
}

/// The file in the run directory.
pub(super) const FILE: &str = "launch.json";
const MAX_BYTES: u64 = 1 << 20;

/// Records the arguments of a run and its date.
pub(super) fn write(run_dir: &Path, args: &RecipeArgs, clock: Option<Clock>) -> Result<()> {
    let launch = serde_json::json!({
        "recipe": args.recipe, "data_dir": args.data_dir,
        "set": args.set, "limit": args.limit, "stage": args.stage,
        "date": clock.map(Clock::date),
    });
    fsio::write_atomic(run_dir.join(FILE), format!("{launch:#}\n"))?;
    Ok(())
}

/// Reads the arguments of a run.
pub(super) fn read(run_dir: &Path) -> Result<Launch> {
    let path = run_dir.join(FILE);
    let text = fsio::read_text_capped(&path, MAX_BYTES)?;
    let broken = || {
        Failure::input(
            format!("{}: the file is damaged", path.display()),
            "resume with `temper run RECIPE --name NAME`",
        )
    };
    let value: Value = serde_json::from_str(&text).map_err(|_| broken())?;
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let set = value.get("set").cloned().unwrap_or(Value::Null);
    Ok(Launch {
        recipe: text("recipe").map(PathBuf::from).ok_or_else(broken)?,
        data_dir: text("data_dir").map(PathBuf::from),
        set: serde_json::from_value(set).unwrap_or_default(),
        limit: value.get("limit").and_then(Value::as_u64),
        stage: text("stage"),
    })
}

/// The date that a run's templates read: that on which the run was started, or today's for a new run.
pub(super) fn clock_of(run_dir: &Path) -> Result<Clock> {
    let text = match fsio::read_text_capped(run_dir.join(FILE), MAX_BYTES) {
        Ok(text) => text,
        Err(error) if error.is_not_found() => return Ok(Clock::today()),
        Err(error) => return Err(error.into()),
    };
    // A damaged file is reported by `resume`; the arguments of `run` replace it.
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    let date = value.get("date").and_then(Value::as_str);
    Ok(date.and_then(Clock::on).unwrap_or_else(Clock::today))
}
