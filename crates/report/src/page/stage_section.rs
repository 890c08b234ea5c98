//! The section of a stage.

use super::calibration_chart::calibration;
use super::chart::chart;
use super::html::{Html, details};
use super::overview::result;
use super::sample_tables::samples;
use super::stage_tables::{all_metrics, counts, evaluations, plan_and_outcome, sources};
use super::{badge, facts};
use crate::numbers::{clock, counted, millions, thousands, value};
use crate::panels::panels;
use crate::stage::{StageData, StageState};

pub(super) fn section(stage: &StageData, idx: usize) -> Html {
    let title = Html::element(
        "h2",
        &[],
        Html::all([Html::text(&stage.name), Html::literal(" "), badge(stage.state.name())]),
    );
    let mut out = title.line();
    let result = result(stage);
    if result != "–" {
        out.push(Html::class("p", "result", Html::text(&result)).line());
    }
    out.push(facts(&stage_facts(stage)));
    let data = Html::all([sources(stage), counts(stage)]);
    if !data.is_empty() {
        out.push(part("Data", data));
    }
    out.push(curves(stage));
    if let Some(calibrated) = &stage.calibration {
        out.push(calibration(calibrated));
    }
    let measured = evaluations(&stage.metrics);
    if !measured.is_empty() {
        out.push(part("Evaluations", measured));
    }
    out.push(samples(stage));
    let outcome = plan_and_outcome(stage);
    if !outcome.is_empty() {
        out.push(part("Plan and outcome", outcome));
    }
    out.push(folds(stage));
    let id = format!("stage-{idx}");
    Html::element("section", &[("id", id.as_str())], out).line()
}

fn part(title: &str, inner: Html) -> Html {
    Html::class("div", "part", Html::all([Html::tag("h3", title), inner])).line()
}

fn stage_facts(stage: &StageData) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(plan) = &stage.plan {
        let parameters = if plan.trained == plan.parameters {
            millions(plan.parameters)
        } else {
            format!("{} of {}", millions(plan.trained), millions(plan.parameters))
        };
        facts.extend([
            ("Starts from", plan.start.clone()),
            ("Trained parameters", parameters),
            ("Per step", plan.per_step.clone()),
            ("Epochs", value(plan.epochs)),
        ]);
    }
    facts.push(("Steps", stage.step_text()));
    if let Some(finished) = &stage.finished {
        facts.push(("Tokens", thousands(finished.tokens)));
        facts.push(("Time", clock(finished.seconds)));
        if finished.seconds > 0.0 {
            let rate = finished.tokens as f64 / finished.seconds;
            facts.push(("Tokens per second", thousands(rate as u64)));
        }
    } else if let (StageState::Running, Some(left)) = (stage.state, stage.seconds_left()) {
        facts.push(("Time left", clock(left)));
    }
    if let (false, Some(last)) = (stage.finished.is_some(), stage.checkpoints.last()) {
        facts.push(("Last checkpoint", format!("step {}", thousands(*last))));
    }
    facts
}

/// The first picture large, the others beside each other.
fn curves(stage: &StageData) -> Html {
    let panels = panels(&stage.metrics);
    let mut charts = panels.iter().enumerate().map(|(idx, panel)| chart(panel, idx == 0));
    let Some(first) = charts.next().filter(|first| !first.is_empty()) else {
        let text = match stage.state {
            StageState::Waiting => "The stage has not begun.",
            StageState::Running
            | StageState::Interrupted
            | StageState::Failed
            | StageState::Finished => "No metrics were logged.",
        };
        return Html::class("p", "none", Html::text(text)).line();
    };
    let rest = Html::class("div", "charts", Html::all(charts));
    part("Curves", Html::all([first, rest]))
}

fn folds(stage: &StageData) -> Html {
    let mut out = Html::default();
    let table = all_metrics(&stage.metrics);
    if !table.is_empty() {
        let n = stage.metrics.series.len() as u64;
        out.push(details(&format!("All {}", counted(n, "metric")), table));
    }
    let notes = stage.plan.iter().flat_map(|plan| &plan.notes);
    let notes: Vec<Html> = notes.map(|note| Html::tag("li", note)).collect();
    if !notes.is_empty() {
        let list = Html::element("ul", &[], Html::all(notes));
        out.push(details("Notes of the plan", list));
    }
    out
}
