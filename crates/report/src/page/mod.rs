//! The page of a run: one HTML document without scripts, pictures from elsewhere or a network.

mod axis;
mod calibration_chart;
mod chart;
mod comparison;
mod html;
mod overview;
mod provenance;
mod sample_tables;
mod stage_section;
mod stage_tables;
mod thinned;

pub use comparison::{ComparedAnswers, ComparedVerdict, Comparison, comparison_page};
use html::Html;

use crate::PAGE_START;
use crate::run::{RunData, RunState};

const STYLE: &str = include_str!("style.css");

/// The page of a run as HTML.
pub fn page(run: &RunData) -> String {
    let mut main = overview::overview(run);
    for (idx, stage) in run.stages.iter().enumerate() {
        main.push(stage_section::section(stage, idx));
    }
    main.push(provenance::provenance(run));
    document(&format!("{} · {}", run.name, run.state.name()), main)
}

/// A whole document around the main part of a page.
fn document(title: &str, main: Html) -> String {
    let meta = |attributes: &[(&'static str, &str)]| {
        Html::element("meta", attributes, Html::default()).line()
    };
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    let head = Html::all([
        meta(&[("charset", "utf-8")]),
        meta(&[("http-equiv", "Content-Security-Policy"), ("content", policy)]),
        meta(&[("name", "viewport"), ("content", "width=device-width, initial-scale=1")]),
        meta(&[("name", "color-scheme"), ("content", "light dark")]),
        Html::tag("title", title).line(),
        Html::element("style", &[], Html::literal(STYLE)).line(),
    ]);
    let body = Html::element("main", &[], main);
    let html = Html::all([
        Html::element("head", &[], head).line(),
        Html::element("body", &[], body).line(),
    ]);
    let html = Html::element("html", &[("lang", "en")], html).line();
    format!("{PAGE_START}{}", html.into_string())
}

/// A state as a badge: a word in a frame whose colour repeats it.
fn badge(word: &str) -> Html {
    let class = match word {
        "finished" => "badge good",
        "running" => "badge live",
        "failed" => "badge bad",
        "waiting" | "not started" => "badge",
        _ => "badge warn",
    };
    Html::class("span", class, Html::text(word))
}

/// A list of terms and what they are; terms without a text are left out.
fn facts(facts: &[(&str, String)]) -> Html {
    let shown = facts.iter().filter(|(_, text)| !text.is_empty());
    let items = shown.map(|(term, text)| {
        let pair = Html::all([Html::tag("dt", term), Html::tag("dd", text)]);
        // A path has the space of two facts.
        let is_long = text.chars().count() > 30;
        if is_long { Html::class("div", "long", pair) } else { Html::element("div", &[], pair) }
    });
    let items: Vec<Html> = items.collect();
    if items.is_empty() {
        Html::default()
    } else {
        Html::class("dl", "facts", Html::all(items)).line()
    }
}

/// Remark on a run that is not finished.
fn state_note(run: &RunData) -> Option<String> {
    Some(match &run.state {
        RunState::Finished => return None,
        RunState::Empty => "No stage of this run has begun.".to_owned(),
        RunState::Running { .. } => {
            "The run is in progress. This page shows it as it was when the page was written."
                .to_owned()
        }
        RunState::Stopped => {
            format!("The run was stopped and can be continued: temper resume {}", run.name)
        }
        RunState::Interrupted => format!(
            "The run was interrupted without a chance to save: its process was killed or the machine stopped. It continues from \
             its last checkpoint with: temper resume {}",
            run.name
        ),
        RunState::Failed { error } => {
            let error = error.trim();
            if error.is_empty() {
                "The run failed.".to_owned()
            } else {
                format!("The run failed: {error}")
            }
        }
    })
}
