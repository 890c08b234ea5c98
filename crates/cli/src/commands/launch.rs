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
/// The format of the file. Files of older versions have none, and the same keys.
const FORMAT: u64 = 1;

/// Checks that the paths of a command line can be recorded: JSON has no other text than UTF-8.
pub(super) fn check_paths(args: &RecipeArgs) -> Result<()> {
    for path in std::iter::once(&args.recipe).chain(&args.data_dir) {
        if path.to_str().is_none() {
            return Err(Failure::input(
                format!("`{}`: the path is not UTF-8", path.display()),
                "rename it: the run's launch.json has to name it",
            ));
        }
    }
    Ok(())
}

/// Records the arguments of a run, its date and, if it computes in bf16 on the CPU, how.
pub(super) fn write(
    run_dir: &Path,
    args: &RecipeArgs,
    clock: Option<Clock>,
    bf16_products: Option<kernels::Bf16Products>,
) -> Result<()> {
    let launch = serde_json::json!({
        "format": FORMAT,
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
    let value: Value = serde_json::from_str(&text).map_err(|_| damaged(&path))?;
    check_format(&path, &value)?;
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let set = value.get("set").cloned().unwrap_or(Value::Null);
    Ok(Launch {
        recipe: text("recipe").map(PathBuf::from).ok_or_else(|| damaged(&path))?,
        data_dir: text("data_dir").map(PathBuf::from),
        set: serde_json::from_value(set).unwrap_or_default(),
        limit: value.get("limit").and_then(Value::as_u64),
        stage: text("stage"),
    })
}

/// The date that a run's templates read: that on which the run was started, or today's for a new run and for one of an older
/// version, which has none.
///
/// Errors: another version wrote the file, or the date of the run cannot be read from it. Today's would be another one.
pub(super) fn clock_of(run_dir: &Path) -> Result<Clock> {
    let Some(recorded) = recorded(run_dir)? else { return Ok(Clock::today()) };
    match recorded.get("date") {
        None | Some(Value::Null) => Ok(Clock::today()),
        Some(date) => date.as_str().and_then(Clock::on).ok_or_else(|| damaged(&run_dir.join(FILE))),
    }
}

/// Refuses a file of a newer version before anything else in it is read.
fn check_format(path: &Path, launch: &Value) -> Result<()> {
    match launch.get("format").map(|_| fsio::format_number(launch, "format")) {
        None | Some(Some(FORMAT)) => Ok(()),
        Some(found) => {
            let newer = found.is_some_and(|found| found > FORMAT);
            let found = launch.get("format").map(Value::to_string).unwrap_or_default();
            Err(Failure::input(
                format!(
                    "{}: made by {}: format `{found}`, this version reads format `{FORMAT}`",
                    path.display(),
                    if newer { "a newer Temper" } else { "another version of Temper" },
                ),
                "use the version of Temper that made it; nothing was changed",
            ))
        }
    }
}

/// The error of a file that does not say how a run was started, or when.
fn damaged(path: &Path) -> Failure {
    let date = format!(r#"{{"date": "{}"}}"#, Clock::today().date());
    Failure::input(
        format!("{}: the file is damaged", path.display()),
        format!(
            "replace its content with the day on which the run was started, such as `{date}`; then `temper run RECIPE --name \
             NAME` continues the run, on the same day for its chat templates"
        ),
    )
}

/// How a run that was started before computes products in bf16, as the file says: older versions used pairs and recorded nothing.
///
/// Errors: another version wrote the file, or its value is none that this version knows.
pub(super) fn bf16_products_of(run_dir: &Path) -> Result<Option<kernels::Bf16Products>> {
    let Some(recorded) = recorded(run_dir)? else { return Ok(None) };
    match recorded.get("bf16_products") {
        None if recorded.get("format").is_none() => Ok(Some(kernels::Bf16Products::Pairs)),
        None | Some(Value::Null) => Ok(None),
        Some(name) => {
            let products = name.as_str().and_then(kernels::Bf16Products::of_name);
            products.map(Some).ok_or_else(|| damaged(&run_dir.join(FILE)))
        }
    }
}

/// What the file of a run that was started before says.
fn recorded(run_dir: &Path) -> Result<Option<Value>> {
    let path = run_dir.join(FILE);
    let text = match fsio::read_text_capped(&path, MAX_BYTES) {
        Ok(text) => text,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let value: Value = serde_json::from_str(&text).map_err(|_| damaged(&path))?;
    if !value.is_object() {
        return Err(damaged(&path));
    }
    check_format(&path, &value)?;
    Ok(Some(value))
}
