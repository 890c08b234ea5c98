//! `temper runs show`: the curves of a run in the terminal.

use std::path::Path;

use report::{Panel, RunData, RunState, StageData, StageState, headline, last_validation, panels};

use super::locate;
use crate::args::ShowArgs;
use crate::commands::print;
use crate::failure::{Failure, Result};
use crate::render::curve::{self, Curve};
use crate::render::table;

/// Width without a terminal, and the largest one.
const WIDTHS: (usize, usize) = (80, 120);
/// Rows of the first picture of a stage.
const ROWS: usize = 10;

pub(super) fn run(dir: &Path, args: &ShowArgs) -> Result<()> {
    let run = RunData::read(&locate(dir, &args.run)?)?;
    let stages: Vec<&StageData> = match &args.stage {
        Some(name) => run.stages.iter().filter(|stage| stage.name == *name).collect(),
        None => run.stages.iter().collect(),
    };
    if let (true, Some(name)) = (stages.is_empty(), &args.stage) {
        let names: Vec<&str> = run.stages.iter().map(|stage| stage.name.as_str()).collect();
        return Err(Failure::input(
            format!("no such stage: `{name}`"),
            format!("stages of the run: {}", names.join(", ")),
        ));
    }
    let (default, most) = WIDTHS;
    let width = terminal_size::terminal_size_of(std::io::stdout())
        .map_or(default, |(width, _)| usize::from(width.0).saturating_sub(1))
        .clamp(30, most);
    print(&head(&run))?;
    for stage in stages {
        print(&stage_text(stage, width))?;
    }
    Ok(())
}

fn head(run: &RunData) -> String {
    let mut text = format!("{} · {}\n", run.name, run.state.name());
    if let RunState::Failed { error } = &run.state {
        text += &format!("  {}\n", error.replace('\n', "\n  "));
    }
    for problem in run.all_problems() {
        text += &format!("  {problem}\n");
    }
    text
}

fn stage_text(stage: &StageData, width: usize) -> String {
    let mut parts = vec![stage.state.name().to_owned(), format!("step {}", stage.step_text())];
    if let (StageState::Running, Some(left)) = (stage.state, stage.seconds_left()) {
        parts.push(format!("left {}", table::clock(left)));
    }
    if let Some(finished) = &stage.finished {
        parts.push(table::clock(finished.seconds));
        parts.extend(headline(&finished.result));
    } else if let Some(last) = last_validation(&stage.metrics) {
        parts.push(format!("{last} at step {}", table::thousands(last.step)));
    }
    let mut text = format!("\n{}  {}\n", stage.name, parts.join(" · "));
    let panels = panels(&stage.metrics);
    if let Some((first, rest)) = panels.split_first() {
        text += &curve::plot(&first.title, &curves(first), width, ROWS);
        text += &curve::sparklines(rest.iter().flat_map(|panel| rows(panel)), width);
    }
    text
}

fn curves<'a>(panel: &'a Panel<'a>) -> Vec<Curve<'a>> {
    let lines = panel.lines.iter();
    lines.map(|line| Curve { label: line.label.clone(), points: &line.series.points }).collect()
}

/// Lines of a small picture by their names: that of the panel, and of the line if there are several.
fn rows<'a>(panel: &'a Panel<'a>) -> impl Iterator<Item = Curve<'a>> {
    panel.lines.iter().map(|line| {
        let label = match panel.lines.len() {
            1 => panel.title.clone(),
            _ => format!("{}, {}", panel.title, line.label),
        };
        Curve { label, points: &line.series.points }
    })
}
