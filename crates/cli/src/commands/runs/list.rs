//! `temper runs`: a line for each stage of each run, correct while a run is in progress.

use report::{RunData, StageData, StageState, last_validation, runs_in};
use serde_json::{Value, json};

use crate::args::RunsArgs;
use crate::commands::print;
use crate::failure::{Failure, Result};
use crate::render::progress::warn;
use crate::render::table;

pub(super) fn run(args: &RunsArgs) -> Result<()> {
    if !args.dir.is_dir() {
        return Err(Failure::input(
            format!("no such directory: `{}`", args.dir.display()),
            "runs are saved in runs/ of the directory where they were started; choose another with --dir",
        ));
    }
    let mut runs = Vec::new();
    for path in runs_in(&args.dir) {
        let run = RunData::read(&path)?;
        for problem in run.all_problems() {
            warn(&format!("{}: {problem}", run.name));
        }
        runs.push(run);
    }
    if args.json {
        for run in &runs {
            for stage in &run.stages {
                print(&format!("{}\n", as_json(&run.name, stage)))?;
            }
        }
        return Ok(());
    }
    print(&as_table(&runs))
}

/// The state of a stage as a word. A finished stage may have the weights of its best evaluation.
fn state(stage: &StageData) -> &'static str {
    let is_best = stage.finished.as_ref().is_some_and(|finished| finished.best_step().is_some());
    if is_best && stage.state == StageState::Finished {
        "finished (best)"
    } else if stage.state == StageState::Interrupted && stage.checkpoints.is_empty() {
        "started"
    } else {
        stage.state.name()
    }
}

/// The step of the weights in `model/`, or else the latest step.
fn step(stage: &StageData) -> u64 {
    let best = stage.finished.as_ref().and_then(report::FinishedFile::best_step);
    best.unwrap_or_else(|| stage.step())
}

fn last_loss(stage: &StageData) -> Option<f64> {
    let loss = stage.metrics.get(report::Phase::Training, "loss")?;
    loss.last().map(|point| point.value)
}

fn seconds_left(stage: &StageData) -> Option<f64> {
    stage.seconds_left().filter(|_| stage.state == StageState::Running)
}

fn as_json(run: &str, stage: &StageData) -> Value {
    let validation = last_validation(&stage.metrics)
        .map(|last| json!({ "step": last.step, "metric": last.metric, "value": last.value }));
    json!({
        "run": run, "stage": stage.name, "state": state(stage), "step": step(stage),
        "loss": last_loss(stage), "bytes": stage.bytes, "max_steps": stage.max_steps(),
        "seconds_left": seconds_left(stage), "validation": validation,
    })
}

fn as_table(runs: &[RunData]) -> String {
    let head = ["run", "stage", "state", "step", "left", "loss", "validation", "size"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for run in runs {
        for stage in &run.stages {
            let none = || "-".to_owned();
            let steps = match stage.max_steps() {
                0 => table::thousands(step(stage)),
                max => format!("{}/{}", table::thousands(step(stage)), table::thousands(max)),
            };
            lines.push(vec![
                run.name.clone(),
                stage.name.clone(),
                state(stage).to_owned(),
                steps,
                seconds_left(stage).map_or_else(none, table::clock),
                last_loss(stage).map_or_else(none, |loss| format!("{loss:.4}")),
                last_validation(&stage.metrics).map_or_else(none, |last| last.to_string()),
                table::bytes(stage.bytes),
            ]);
        }
    }
    if lines.len() == 1 {
        return "no runs yet\n".to_owned();
    }
    table::columns(&lines, &[3, 4, 5, 7])
}
