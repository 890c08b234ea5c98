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

/// Records the arguments of a run, its date and, if it computes in bf16 on the CPU, how.
pub(super) fn write(
    run_dir: &Path,
    args: &RecipeArgs,
    clock: Option<Clock>,
    bf16_products: Option<kernels::Bf16Products>,
) -> Result<()> {
    let launch = serde_json::json!({
        "recipe": args.recipe, "data_dir": args.data_dir,
        "set": args.set, "limit": args.limit, "stage": args.stage,
        "date": clock.map(Clock::date),
        "bf16_products": bf16_products.map(kernels::Bf16Products::name),
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
    let recorded = recorded(run_dir)?.unwrap_or_default();
    let date = recorded.get("date").and_then(Value::as_str);
    Ok(date.and_then(Clock::on).unwrap_or_else(Clock::today))
}

/// How a run that was started before computes products in bf16: older versions used pairs and recorded nothing.
pub(super) fn bf16_products_of(run_dir: &Path) -> Result<Option<kernels::Bf16Products>> {
    let Some(recorded) = recorded(run_dir)? else { return Ok(None) };
    let name = recorded.get("bf16_products").and_then(Value::as_str);
    let name = name.unwrap_or(kernels::Bf16Products::Pairs.name());
    Ok(kernels::Bf16Products::ALL.into_iter().find(|products| products.name() == name))
}

/// What the file of a run that was started before says.
fn recorded(run_dir: &Path) -> Result<Option<Value>> {
    match fsio::read_text_capped(run_dir.join(FILE), MAX_BYTES) {
        // A damaged file is reported by `resume`; the arguments of `run` replace it.
        Ok(text) => Ok(Some(serde_json::from_str(&text).unwrap_or_default())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
