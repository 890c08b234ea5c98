//! The top of the page: what the run is, how it ended, and one line for each stage.

use super::html::{Html, table};
use super::{badge, state_note};
use crate::facts::{headline, last_validation};
use crate::numbers::{clock, counted, thousands};
use crate::run::{RunData, RunState};
use crate::stage::StageData;
use crate::time::utc;

pub(super) fn overview(run: &RunData) -> Html {
    let title = Html::element(
        "h1",
        &[],
        Html::all([Html::text(&run.name), Html::literal(" "), badge(run.state.name())]),
    );
    let mut out = Html::element(
        "header",
        &[],
        Html::all([title.line(), Html::class("p", "sub", Html::text(&subtitle(run)))]),
    )
    .line();
    if let Some(note) = state_note(run) {
        let class = match run.state {
            RunState::Failed { .. } => "note bad",
            RunState::Empty
            | RunState::Running { .. }
            | RunState::Stopped
            | RunState::Interrupted
            | RunState::Finished => "note",
        };
        out.push(Html::class("p", class, Html::text(&note)).line());
    }
    let problems = run.all_problems();
    if !problems.is_empty() {
        let items = problems.iter().map(|problem| Html::tag("li", problem));
        let list = Html::element("ul", &[], Html::all(items));
        let head = Html::tag("b", "Files that could not be read in full");
        out.push(Html::class("div", "note bad", Html::all([head, list])).line());
    }
    if !run.stages.is_empty() {
        out.push(stages(run));
    }
    out
}

/// `4 stages · 1:52 of training · cpu, f32, 2 threads · started 2026-11-30 07:31 UTC`
fn subtitle(run: &RunData) -> String {
    let mut parts = vec![counted(run.stages.len() as u64, "stage")];
    if run.seconds() > 0.0 {
        parts.push(format!("{} of training", clock(run.seconds())));
    }
    if let Some(plan) = &run.plan {
        let threads = counted(plan.threads as u64, "thread");
        let mut device = format!("{}, {}, {threads}", plan.device, plan.precision);
        if plan.replicas > 1 {
            device += &format!(", {} replicas", plan.replicas);
        }
        parts.push(device);
        if plan.started > 0 {
            parts.push(format!("started {}", utc(plan.started)));
        }
    }
    if let Some(report) = run.report.as_ref().filter(|report| report.sessions > 1) {
        parts.push(counted(report.sessions, "session"));
    }
    parts.join(" · ")
}

fn stages(run: &RunData) -> Html {
    let rows = run.stages.iter().enumerate().map(|(idx, stage)| {
        let link = format!("#stage-{idx}");
        let name = Html::element("a", &[("href", link.as_str())], Html::text(&stage.name));
        vec![
            name,
            badge(stage.state.name()),
            Html::text(&trained_on(stage)),
            Html::text(&stage.step_text()),
            Html::text(&time(stage)),
            Html::text(&result(stage)),
        ]
    });
    let head = ["Stage", "State", "Trained on", "Steps", "Time", "Result"];
    table("stages", &head, rows.collect(), &[3, 4])
}

/// Paths of the data, without the directories that all paths of this kind share.
fn trained_on(stage: &StageData) -> String {
    let Some(plan) = &stage.plan else { return "–".to_owned() };
    let names = plan.sources.iter().map(|source| {
        let name = source.path.rsplit('/').next().unwrap_or(&source.path);
        if name.is_empty() { source.path.clone() } else { name.to_owned() }
    });
    let names: Vec<String> = names.collect();
    if names.is_empty() { "–".to_owned() } else { names.join(", ") }
}

fn time(stage: &StageData) -> String {
    match &stage.finished {
        Some(finished) => {
            let planned = stage.plan.as_ref().and_then(|plan| plan.seconds);
            let planned = planned.map(|seconds| format!(" (planned {})", clock(seconds)));
            clock(finished.seconds) + &planned.unwrap_or_default()
        }
        None => "–".to_owned(),
    }
}

/// Result of the exported weights, or else the latest evaluation or loss.
pub(super) fn result(stage: &StageData) -> String {
    if let Some(finished) = &stage.finished {
        let best = finished.best_step().map(|step| format!(", best at step {step}"));
        let headline = headline(&finished.result).unwrap_or_else(|| "–".to_owned());
        return headline + &best.unwrap_or_default();
    }
    match last_validation(&stage.metrics) {
        Some(last) => format!("validation {last} at step {}", thousands(last.step)),
        None => "–".to_owned(),
    }
}
