//! A page with the answers of two or three models to the same prompts beside each other.

use super::document;
use super::html::{Html, details, open_details};
use super::sample_tables::{shown_prompt, text};
use crate::numbers::{counted, thousands, value};

/// Answers of models to the same prompts, for a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Names of the models; verdicts are about the first two.
    pub models: Vec<String>,
    /// Judge or reward model, as in `reward model runs/x/reward`.
    pub judge: Option<String>,
    /// How the answers were made, as in `greedy, at most 256 tokens`.
    pub settings: String,
    /// File of the prompts.
    pub prompts: String,
    /// Share of wins of the first model, a tie being half a win, with its 95 % interval.
    pub win_rate: Option<(f64, (f64, f64))>,
    /// Prompts with their answers.
    pub rows: Vec<ComparedAnswers>,
}

/// Answers to one prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ComparedAnswers {
    /// Location of the prompt.
    pub place: String,
    /// Prompt.
    pub prompt: String,
    /// An answer for each model.
    pub answers: Vec<String>,
    /// Scores of the answers, where a reward model judged.
    pub scores: Vec<f64>,
    /// Verdict for the first model.
    pub verdict: Option<ComparedVerdict>,
}

/// Verdict for the first model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparedVerdict {
    /// Its answer is better.
    Win,
    /// Neither is.
    Tie,
    /// The second model's answer is better.
    Loss,
}

/// The page as HTML.
pub fn comparison_page(comparison: &Comparison) -> String {
    let title = comparison.models.join(" · ");
    let between = if comparison.judge.is_some() { " against " } else { ", " };
    let heading = Html::tag("h1", &comparison.models.join(between));
    let mut parts = vec![counted(comparison.rows.len() as u64, "prompt")];
    parts.push(format!("from {}", comparison.prompts));
    parts.push(comparison.settings.clone());
    parts.extend(comparison.judge.as_ref().map(|judge| format!("judged by {judge}")));
    let sub = Html::class("p", "sub", Html::text(&parts.join(" · ")));
    let mut main = Html::element("header", &[], Html::all([heading, sub])).line();
    main.push(verdicts(comparison));
    let better = |idx: usize| {
        let name = comparison.models.get(idx).map_or("", String::as_str);
        format!("{name} is better")
    };
    let groups = [
        (Some(ComparedVerdict::Win), better(0)),
        (Some(ComparedVerdict::Loss), better(1)),
        (Some(ComparedVerdict::Tie), "Neither is better".to_owned()),
        (None, "Answers".to_owned()),
    ];
    for (verdict, title) in groups {
        main.push(group(comparison, verdict, &title));
    }
    document(&title, main)
}

fn n_of(comparison: &Comparison, verdict: ComparedVerdict) -> u64 {
    comparison.rows.iter().filter(|row| row.verdict == Some(verdict)).count() as u64
}

/// Wins, ties and losses as a bar with numbers.
fn verdicts(comparison: &Comparison) -> Html {
    let Some((rate, (low, high))) = comparison.win_rate else { return Html::default() };
    let counts = [
        ("c1", "wins", n_of(comparison, ComparedVerdict::Win)),
        ("c6", "ties", n_of(comparison, ComparedVerdict::Tie)),
        ("c2", "losses", n_of(comparison, ComparedVerdict::Loss)),
    ];
    let shares = counts.iter().filter(|(_, _, n)| *n > 0).map(|(class, _, n)| {
        let style = format!("flex-grow:{n}");
        Html::element("span", &[("class", class), ("style", &style)], Html::default())
    });
    let bar = Html::element("div", &[("class", "bar"), ("aria-hidden", "true")], Html::all(shares));
    let keys = counts.iter().map(|(class, name, n)| {
        let swatch = Html::class("i", class, Html::default());
        let name = Html::text(&format!(" {name}"));
        Html::class("span", "key", Html::all([swatch, Html::tag("strong", &thousands(*n)), name]))
    });
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let text = format!(
        "Win rate of the first model: {} (95 % interval: {} to {}); a tie is half a win.",
        percent(rate),
        percent(low),
        percent(high)
    );
    let text = Html::class("p", "result", Html::text(&text));
    let keys = Html::class("p", "keys", Html::all(keys));
    Html::class("div", "part", Html::all([text, bar, keys])).line()
}

fn group(comparison: &Comparison, verdict: Option<ComparedVerdict>, title: &str) -> Html {
    let rows = comparison.rows.iter().filter(|row| row.verdict == verdict);
    let cards: Vec<Html> = rows.map(|row| card(&comparison.models, row)).collect();
    if cards.is_empty() {
        return Html::default();
    }
    let title = format!("{title} ({})", thousands(cards.len() as u64));
    let cards = Html::class("div", "cards", Html::all(cards));
    match verdict {
        Some(ComparedVerdict::Tie) => details(&title, cards),
        Some(ComparedVerdict::Win | ComparedVerdict::Loss) | None => open_details(&title, cards),
    }
}

fn card(models: &[String], row: &ComparedAnswers) -> Html {
    let place = Html::class("p", "label", Html::text(&row.place));
    let prompt = Html::class("div", "prompt", Html::all([place, shown_prompt(&row.prompt)]));
    let better = match row.verdict {
        Some(ComparedVerdict::Win) => Some(0),
        Some(ComparedVerdict::Loss) => Some(1),
        Some(ComparedVerdict::Tie) | None => None,
    };
    let sides = models.iter().zip(&row.answers).enumerate().map(|(idx, (model, answer))| {
        let mut label = model.clone();
        if let Some(score) = row.scores.get(idx) {
            label += &format!(" · score {}", value(*score));
        }
        if better == Some(idx) {
            label += " · better";
        }
        let label = Html::class("p", "label", Html::text(&label));
        let class = if better == Some(idx) { "side better" } else { "side" };
        Html::class("div", class, Html::all([label, text(answer)]))
    });
    let class = if models.len() > 2 { "sides three" } else { "sides" };
    let sides = Html::class("div", class, Html::all(sides));
    Html::class("div", "card", Html::all([prompt, sides])).line()
}
