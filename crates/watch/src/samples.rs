//! The newest samples of a stage as lines.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::look::{Look, title};
use crate::numbers::thousands;
use crate::printable::printable;
use crate::run_view::{Sample, StageView};

/// Characters of a text that are shown where samples share the screen with curves.
const SHORT_CHARS: usize = 400;

/// Lines of the samples, the newest first. Lines of a text are joined unless `whole`.
pub(crate) fn sample_lines(stage: &StageView, look: Look, whole: bool) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for sample in stage.samples.iter().rev() {
        lines.extend(if whole { whole_sample(sample, look) } else { short_sample(sample, look) });
    }
    lines
}

/// One line for the text, and one for the text before training.
fn short_sample(sample: &Sample, look: Look) -> Vec<Line<'static>> {
    let score = sample.score.map(|score| format!(" ({score:.2})")).unwrap_or_default();
    let head = format!("{}{score}  ", thousands(sample.step));
    let mut spans = vec![Span::styled(head, look.dim())];
    let prompt = joined(&sample.prompt, look);
    if !prompt.is_empty() {
        let arrow = if look.unicode { " → " } else { " -> " };
        spans.push(Span::styled(prompt + arrow, look.prompt()));
    }
    spans.push(Span::raw(joined(&sample.text, look)));
    let before = sample.before.as_ref().map(|before| {
        Line::from(vec![
            Span::styled("  before  ", look.dim()),
            Span::styled(joined(before, look), look.dim()),
        ])
    });
    std::iter::once(Line::from(spans)).chain(before).collect()
}

/// All lines of prompt, text, and text before training.
fn whole_sample(sample: &Sample, look: Look) -> Vec<Line<'static>> {
    let score = sample.score.map(|score| format!("  score {score:.3}")).unwrap_or_default();
    let head = format!("step {}{score}", thousands(sample.step));
    let mut lines = vec![Line::styled(head, title())];
    let mut add = |text: &str, style| {
        let text = printable(text);
        lines.extend(text.lines().map(|line| Line::styled(line.replace('\t', "    "), style)));
    };
    add(&sample.prompt, look.prompt());
    add(&sample.text, Style::new());
    if let Some(before) = &sample.before {
        add("before:", look.dim());
        add(before, look.dim());
    }
    lines.push(Line::default());
    lines
}

fn joined(text: &str, look: Look) -> String {
    let (line_feed, tab) = if look.unicode { ("⏎", " ") } else { ("\\n", " ") };
    let short: String = text.trim_end().chars().take(SHORT_CHARS).collect();
    printable(&short).replace('\n', line_feed).replace('\t', tab)
}
