//! The first lines of the view: the run and its stages, progress, and the latest numbers.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};

use crate::line::{bar, cut, width};
use crate::look::{Look, title};
use crate::numbers::{bytes, clock, millions, thousands};
use crate::printable::printable;
use crate::run_view::{RunView, StageView};
use crate::status::RunState;

/// Draws three lines about stage `at` of a run.
pub(crate) fn draw_head(
    frame: &mut Frame<'_>,
    area: Rect,
    view: &RunView,
    at: usize,
    stage: &StageView,
    look: Look,
) {
    let columns = usize::from(area.width);
    let state = state_text(view.state);
    let room = columns.saturating_sub(width(state) + 2);
    let [first, second, third] =
        [0, 1, 2].map(|y| Rect { y: area.y + y, height: u16::from(y < area.height), ..area });
    frame.render_widget(Line::from(stage_spans(view, at, room, look)), first);
    frame.render_widget(Line::styled(state, look.of_state(view.state)).right_aligned(), first);
    frame.render_widget(Line::from(progress_text(stage, columns, look)), second);
    frame.render_widget(Line::from(fitted(&facts(view, stage, look), columns)), third);
}

fn state_text(state: RunState) -> &'static str {
    match state {
        RunState::Unknown => "",
        RunState::Training => "training",
        RunState::Stopping => "stopping after this step",
        RunState::Stopped => "stopped",
        RunState::Finished => "finished",
        RunState::Failed => "not running",
    }
}

/// The run's name and its stages; only the shown stage where there is no room for all.
fn stage_spans(view: &RunView, at: usize, room: usize, look: Look) -> Vec<Span<'static>> {
    let name = cut(&printable(&view.name), room.min(40)).to_owned();
    let mut spans = vec![Span::styled(name, title())];
    let texts: Vec<String> = (0..view.stages.len()).map(|at| stage_text(view, at, look)).collect();
    let needed = texts.iter().map(|text| width(text) + 2).sum::<usize>();
    let left = room.saturating_sub(spans.iter().map(Span::width).sum());
    if needed <= left {
        for (idx, text) in texts.into_iter().enumerate() {
            let mut style = if idx == view.current { title() } else { look.dim() };
            // More than one stage: the shown one is marked.
            if idx == at && view.stages.len() > 1 {
                style = style.add_modifier(Modifier::UNDERLINED);
            }
            spans.push(Span::raw("  "));
            spans.push(Span::styled(text, style));
        }
    } else if let Some(text) = texts.get(at) {
        let text = format!("  {text} ({} of {})", at + 1, texts.len());
        spans.push(Span::styled(cut(&text, left).to_owned(), title()));
    }
    spans
}

fn stage_text(view: &RunView, at: usize, look: Look) -> String {
    let Some(stage) = view.stages.get(at) else { return String::new() };
    let is_current = at == view.current && view.state.is_live();
    let mark = match (stage.is_finished, is_current, look.unicode) {
        (true, _, true) => "✓",
        (true, _, false) => "+",
        (false, true, true) => "▸",
        (false, true, false) => ">",
        (false, false, true) => "·",
        (false, false, false) => "-",
    };
    format!("{mark} {}", printable(&stage.name))
}

/// Steps, bar and times.
fn progress_text(stage: &StageView, columns: usize, look: Look) -> String {
    if stage.name.is_empty() {
        return "no stage has started".to_owned();
    }
    let steps = match stage.max_steps {
        0 => format!("step {}", thousands(stage.step)),
        max => format!("{}/{}", thousands(stage.step), thousands(max)),
    };
    let share = stage.step as f64 / stage.max_steps.max(1) as f64;
    let mut after = String::new();
    if stage.max_steps > 0 {
        after += &format!("  {:.0} %", 100.0 * share.min(1.0));
    }
    if stage.elapsed > 0.0 {
        after += &format!("  {} elapsed", clock(stage.elapsed));
    }
    if let Some(left) = stage.left.filter(|_| !stage.is_finished) {
        after += &format!("  {} left", clock(left));
    }
    let room = columns.saturating_sub(width(&steps) + width(&after) + 2);
    if stage.max_steps == 0 || room < 5 {
        return format!("{steps}{after}");
    }
    format!("{steps}  {}{after}", bar(share, room, look.unicode))
}

/// The latest numbers, the most important first.
fn facts(view: &RunView, stage: &StageView, look: Look) -> Vec<String> {
    let row = &stage.latest;
    let number = |names: &[&str]| row.first_of(names);
    let mut facts = Vec::new();
    if let Some(reward) = number(&["objective/scores", "reward"]) {
        facts.push(format!("reward {reward:.3}"));
        facts.extend(number(&["objective/kl", "kl"]).map(|kl| format!("KL {kl:.2}")));
    }
    if let Some(loss) = number(&["loss"]) {
        let arrow = match stage.previous_loss {
            Some(before) if loss < before && look.unicode => " ↓",
            Some(before) if loss > before && look.unicode => " ↑",
            Some(_) | None => "",
        };
        facts.push(format!("loss {loss:.4}{arrow}"));
    } else if row.step > 0 {
        facts.push("loss -".to_owned());
    }
    let rate = number(&["tokens_per_s"]);
    facts.extend(rate.map(|rate| format!("{} tok/s", thousands(rate as u64))));
    facts.extend(view.memory_bytes.map(|n| format!("memory {}", bytes(n))));
    facts.extend(number(&["lr"]).map(|lr| format!("lr {lr:.2e}")));
    facts.extend(number(&["grad_norm"]).map(|norm| format!("norm {norm:.2}")));
    facts.extend(number(&["tokens"]).map(|n| format!("{} tokens", millions(n as u64))));
    if stage.n_parameters > 0 {
        let all = millions(stage.n_parameters);
        facts.push(if stage.n_trained > 0 && stage.n_trained < stage.n_parameters {
            format!("{} of {all} parameters", millions(stage.n_trained))
        } else {
            format!("{all} parameters")
        });
    }
    facts
}

/// As many facts as fit.
pub(crate) fn fitted(facts: &[String], columns: usize) -> String {
    let mut text = String::new();
    for fact in facts {
        let more = if text.is_empty() { fact.clone() } else { format!("  {fact}") };
        if width(&text) + width(&more) <= columns {
            text += &more;
        }
    }
    text
}
