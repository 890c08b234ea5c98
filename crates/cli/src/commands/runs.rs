//! `temper runs`: lists the stages of all runs with state, step, last loss and size.

use std::path::Path;

use serde_json::{Value, json};
use train::{StageDir, StageStatus};

use super::print;
use crate::args::RunsArgs;
use crate::failure::{Failure, Result};
use crate::render::table;

/// One stage of a run.
struct StageRow {
    run: String,
    stage: String,
    state: &'static str,
    step: u64,
    loss: Option<f64>,
    bytes: u64,
}

pub(crate) fn run(args: &RunsArgs) -> Result<()> {
    if !args.dir.is_dir() {
        return Err(Failure::input(
            format!("no such directory: `{}`", args.dir.display()),
            "runs are saved in runs/ of the directory where they were started; choose another with --dir",
        ));
    }
    let mut rows = Vec::new();
    for run in subdirectories(&args.dir) {
        let path = args.dir.join(&run);
        for stage in subdirectories(&path) {
            if let Some(row) = stage_row(&path, &run, &stage)? {
                rows.push(row);
            }
        }
    }
    if args.json {
        for row in &rows {
            print(&format!("{}\n", as_json(row)))?;
        }
        return Ok(());
    }
    print(&as_table(&rows))
}

fn stage_row(root: &Path, run: &str, stage: &str) -> Result<Option<StageRow>> {
    let dir = StageDir::in_run(root, stage);
    if !dir.checkpoints().is_dir() && !dir.model().is_dir() {
        return Ok(None);
    }
    let (state, step) = match dir.status()? {
        StageStatus::NotStarted => ("started", 0),
        StageStatus::Interrupted { step } => ("interrupted", step),
        // The step of the weights in `model/`: early stopping and `export_best` export the best ones.
        StageStatus::Finished(finished) => match finished.best_step() {
            Some(step) => ("finished (best)", step),
            None => ("finished", finished.steps),
        },
    };
    Ok(Some(StageRow {
        run: run.to_owned(),
        stage: stage.to_owned(),
        state,
        step,
        loss: last_loss(&dir.path().join("metrics.jsonl")),
        bytes: size_of(dir.path()),
    }))
}

/// Loss in the last row of the metrics that has one.
fn last_loss(path: &Path) -> Option<f64> {
    let text = fsio::read_text_capped(path, 1 << 30).ok()?;
    text.lines().rev().find_map(|line| {
        let row: Value = serde_json::from_str(line).ok()?;
        row.get("loss")?.as_f64()
    })
}

fn size_of(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size_of(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

fn subdirectories(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

fn as_json(row: &StageRow) -> Value {
    json!({
        "run": row.run, "stage": row.stage, "state": row.state, "step": row.step,
        "loss": row.loss, "bytes": row.bytes,
    })
}

fn as_table(rows: &[StageRow]) -> String {
    if rows.is_empty() {
        return "no runs yet\n".to_owned();
    }
    let head = ["run", "stage", "state", "step", "loss", "size"].map(str::to_owned).to_vec();
    let lines = rows.iter().map(|row| {
        vec![
            row.run.clone(),
            row.stage.clone(),
            row.state.to_owned(),
            table::thousands(row.step),
            row.loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.4}")),
            table::bytes(row.bytes),
        ]
    });
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(lines).collect();
    table::columns(&lines, &[3, 4, 5])
}
