//! The table at the end of a sweep: values, the validation of each stage, time and directory of each run.

use std::collections::BTreeSet;

use report::{LastValidation, RunData, StageState, final_validation, higher_is_better};

use super::planned::{Planned, PlannedRun, PlannedStage};
use crate::render::table;

/// Mark of the best value of a column.
const BEST: &str = " *";

/// The table, with the best validation of each stage marked. `failed` are the names of runs that failed.
pub(super) fn results(planned: &Planned, failed: &BTreeSet<String>) -> String {
    let runs: Vec<(&PlannedRun, Option<RunData>)> =
        planned.runs.iter().map(|run| (run, RunData::read(&run.dir).ok())).collect();
    let stages = stage_names(planned);
    let columns: Vec<Vec<Cell>> = stages.iter().map(|stage| column(stage, &runs, failed)).collect();
    let tail = ["time", "saved in"].map(str::to_owned);
    let head = planned.labels.iter().cloned().chain(stages.iter().cloned()).chain(tail).collect();
    let mut rows: Vec<Vec<String>> = vec![head];
    for (idx, (run, data)) in runs.iter().enumerate() {
        let cells = columns.iter().filter_map(|column| column.get(idx));
        let cells = cells.map(|cell| cell.text.clone());
        let time = data.as_ref().map(RunData::seconds).filter(|seconds| *seconds > 0.0);
        let time = time.map_or_else(|| "-".to_owned(), table::clock);
        let rest = [time, run.dir.display().to_string()];
        rows.push(run.values.iter().cloned().chain(cells).chain(rest).collect());
    }
    let mut text = table::columns(&rows, &[planned.labels.len() + stages.len()]);
    let bests = stages.iter().zip(&columns).filter_map(|(stage, column)| {
        let (run, _) = runs.get(column.iter().position(|cell| cell.is_best)?)?;
        Some(format!("* best [{stage}]: {}\n", run.dir.join(stage).display()))
    });
    text += &bests.collect::<String>();
    for (stage, column) in stages.iter().zip(&columns) {
        if column.iter().any(|cell| cell.is_incomparable) {
            text += &format!(
                "[{stage}]: no best one, because the validation data of the runs differ\n"
            );
        }
    }
    text
}

/// A stage of a run in the table.
#[derive(Default)]
struct Cell {
    text: String,
    is_best: bool,
    is_incomparable: bool,
}

/// Names of the stages of all runs, in the order of training.
fn stage_names(planned: &Planned) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for stage in planned.runs.iter().flat_map(|run| &run.stages) {
        if !names.contains(&stage.name) {
            names.push(stage.name.clone());
        }
    }
    names
}

/// The cells of a stage, one for each run.
fn column(
    stage: &str,
    runs: &[(&PlannedRun, Option<RunData>)],
    failed: &BTreeSet<String>,
) -> Vec<Cell> {
    let planned: Vec<Option<&PlannedStage>> = runs
        .iter()
        .map(|(run, _)| run.stages.iter().find(|planned| planned.name == stage))
        .collect();
    let measured: Vec<Measured> = runs
        .iter()
        .zip(&planned)
        .map(|((run, data), planned)| {
            Measured::of(stage, *planned, data.as_ref(), failed.contains(&run.name))
        })
        .collect();
    let mut targets = planned.iter().flatten().map(|planned| planned.eval_targets);
    let first = targets.next();
    let is_comparable = targets.all(|n| Some(n) == first);
    let best = if is_comparable { best(&measured, &planned) } else { None };
    let n_measured = measured.iter().filter(|of| of.validation.is_some()).count();
    measured
        .iter()
        .map(|of| {
            let is_best = of.is_finished && best.is_some() && of.value() == best;
            let mark = if is_best { BEST } else { "" };
            Cell {
                text: format!("{}{mark}", of.text()),
                is_best,
                is_incomparable: !is_comparable && n_measured > 1,
            }
        })
        .collect()
}

/// The best value of finished stages; `None` if there are not two different ones of one metric.
fn best(measured: &[Measured], planned: &[Option<&PlannedStage>]) -> Option<f64> {
    let finished = || measured.iter().filter(|of| of.is_finished);
    let values: Vec<f64> = finished().filter_map(Measured::value).collect();
    let name = finished().find_map(|of| of.validation.as_ref()).map(|of| of.metric.clone())?;
    let is_one = finished()
        .filter_map(|of| of.validation.as_ref())
        .all(|validation| validation.metric == name);
    let of_recipe = planned.iter().flatten().find_map(|planned| planned.metric.as_ref());
    let higher = of_recipe.map_or_else(|| higher_is_better(&name), |of| of.higher_is_better);
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (is_one && low < high).then_some(if higher { high } else { low })
}

/// What a run has measured in a stage.
struct Measured {
    validation: Option<LastValidation>,
    is_finished: bool,
    /// State of a stage that is not finished.
    state: &'static str,
}

impl Measured {
    fn of(
        stage: &str,
        planned: Option<&PlannedStage>,
        data: Option<&RunData>,
        has_failed: bool,
    ) -> Self {
        let data = data.and_then(|data| data.stages.iter().find(|of| of.name == stage));
        let metric = planned.and_then(|planned| planned.metric.as_ref());
        Self {
            validation: data
                .and_then(|data| final_validation(data, metric.map(|metric| metric.name.as_str()))),
            is_finished: data.is_some_and(|data| data.state == StageState::Finished),
            state: if has_failed {
                StageState::Failed.name()
            } else {
                data.map_or(StageState::Waiting, |data| data.state).name()
            },
        }
    }

    fn value(&self) -> Option<f64> {
        self.validation.as_ref().map(|validation| validation.value)
    }

    fn text(&self) -> String {
        match (&self.validation, self.is_finished) {
            (Some(validation), true) => validation.to_string(),
            (None, true) => "finished, no validation".to_owned(),
            (Some(validation), false) => {
                let step = table::thousands(validation.step);
                format!("{}; {validation} at step {step}", self.state)
            }
            (None, false) => self.state.to_owned(),
        }
    }
}
