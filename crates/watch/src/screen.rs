//! The view of a run on a whole terminal: what it does, curves, samples and messages.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Color;
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Wrap};

use crate::head::{draw_head, fitted};
use crate::line::cut;
use crate::look::{Look, title};
use crate::message::{Message, MessageKind};
use crate::numbers::{thousands, value};
use crate::panels::{Panel, panels};
use crate::plot::{PlotStyle, plot};
use crate::printable::printable;
use crate::run_view::{RunView, StageView};
use crate::samples::sample_lines;

/// Least size of a curve with its border.
const PANEL: (u16, u16) = (26, 6);
/// Who shows the view, which decides what its keys do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The process that trains.
    Run,
    /// Another process.
    Watcher,
}

/// The part of a run that is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Index of the stage; by default the current one.
    pub stage: Option<usize>,
    /// Whether samples have the whole screen.
    pub samples: bool,
    /// Lines of the samples above the screen.
    pub scroll: u16,
    /// Whether vertical axes are logarithmic.
    pub log: bool,
}

/// Draws a run.
pub fn draw(frame: &mut Frame<'_>, view: &RunView, page: &Page, look: Look, owner: Owner) {
    let area = frame.area();
    let at = page.stage.filter(|at| *at < view.stages.len()).unwrap_or(view.current);
    let none = StageView::default();
    let stage = view.stages.get(at).unwrap_or(&none);
    let messages = message_lines(view, area, look);
    let rows = Layout::vertical([
        Constraint::Length(3),
        Constraint::Min(0),
        Constraint::Length(rows_of(&messages, area.width).min(most_message_rows(area.height))),
        Constraint::Length(1),
    ]);
    let [head, body, below, foot] = rows.areas(area);
    draw_head(frame, head, view, at, stage, look);
    if page.samples {
        draw_samples(frame, body, stage, look, Some(page.scroll));
    } else {
        draw_body(frame, body, stage, page, look);
    }
    frame.render_widget(Paragraph::new(messages).wrap(Wrap { trim: true }), below);
    draw_foot(frame, foot, view, page, look, owner);
}

/// Curves, and samples below them where there are any.
fn draw_body(frame: &mut Frame<'_>, area: Rect, stage: &StageView, page: &Page, look: Look) {
    let mut curves = area;
    if !stage.samples.is_empty() && area.height >= PANEL.1 + 4 {
        let needed = rows_of(&sample_lines(stage, look, false), area.width.saturating_sub(2));
        let of_samples = (area.height * 3 / 10).clamp(4, 16).min(needed.saturating_add(2));
        let [above, below] =
            Layout::vertical([Constraint::Min(0), Constraint::Length(of_samples)]).areas(area);
        draw_samples(frame, below, stage, look, None);
        curves = above;
    }
    let shown = panels(stage);
    let Some(first) = shown.first() else {
        let text = if stage.name.is_empty() { "" } else { "no step yet" };
        frame.render_widget(Paragraph::new(text).block(look.block(Line::default())), curves);
        return;
    };
    let slots = slots(curves, shown.len());
    draw_panel(frame, slots[0], *first, stage, page, look);
    for (panel, slot) in shown.iter().skip(1).zip(slots.iter().skip(1)) {
        draw_panel(frame, *slot, *panel, stage, page, look);
    }
}

/// Rectangles for at most `n` curves: the first at the left, the others in columns at its right.
fn slots(area: Rect, n: usize) -> Vec<Rect> {
    let others = n.saturating_sub(1);
    let right = area.width * 2 / 5;
    let n_columns = right / PANEL.0;
    let n_rows = area.height / PANEL.1;
    if others == 0 || n_columns == 0 || n_rows == 0 {
        return vec![area];
    }
    // Panels as large as the number of curves permits.
    let n_columns = usize::from(n_columns).min(others.div_ceil(usize::from(n_rows)));
    let n_rows = usize::from(n_rows).min(others.div_ceil(n_columns));
    let [main, side] =
        Layout::horizontal([Constraint::Min(0), Constraint::Length(right)]).areas(area);
    let columns = Layout::horizontal(vec![Constraint::Fill(1); n_columns]).split(side);
    let mut slots = vec![main];
    for column in columns.iter() {
        let rest = others - (slots.len() - 1);
        let n = rest.min(n_rows);
        slots.extend(Layout::vertical(vec![Constraint::Fill(1); n]).split(*column).iter());
    }
    slots
}

fn draw_panel(
    frame: &mut Frame<'_>,
    area: Rect,
    panel: Panel,
    stage: &StageView,
    page: &Page,
    look: Look,
) {
    let (curve, marks) = (panel.curve(stage), panel.marks(stage));
    let mut heading = format!(" {}", panel.title);
    if let Some(last) = curve.and_then(crate::series::Series::last) {
        heading += &format!(" {}", value(last));
    }
    if let Some(last) = marks.and_then(crate::series::Series::last) {
        let mark = if look.unicode { '◆' } else { 'o' };
        heading += &format!(" {mark} val {}", value(last));
        if let Some((step, lowest)) = marks.and_then(crate::series::Series::lowest)
            && panel.is_loss()
            && lowest < last
        {
            heading += &format!(" (lowest {} at {})", value(lowest), thousands(step));
        }
    }
    heading.push(' ');
    let heading = cut(&heading, usize::from(area.width.saturating_sub(2))).to_owned();
    let block = look.block(Line::styled(heading, title()));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let style = PlotStyle {
        curve: look.with(Color::Cyan),
        marks: look.with(Color::Yellow),
        labels: look.dim(),
        unicode: look.unicode,
        log: page.log,
    };
    plot(frame.buffer_mut(), inner, curve, marks, &style);
}

fn draw_samples(
    frame: &mut Frame<'_>,
    area: Rect,
    stage: &StageView,
    look: Look,
    scroll: Option<u16>,
) {
    let block = look.block(Line::styled(" samples ", title()));
    let mut lines = sample_lines(stage, look, scroll.is_some());
    if lines.is_empty() {
        lines.push(Line::styled("no sample yet", look.dim()));
    }
    let text = Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((scroll.unwrap_or(0), 0));
    frame.render_widget(text.block(block), area);
}

/// Rows that lines take where long ones are wrapped; words may need a little more.
fn rows_of(lines: &[Line<'_>], columns: u16) -> u16 {
    let rows = lines.iter().map(|line| line.width().div_ceil(columns.max(1).into()).max(1));
    u16::try_from(rows.sum::<usize>()).unwrap_or(u16::MAX)
}

/// Rows for messages.
fn most_message_rows(height: u16) -> u16 {
    if height >= 40 { 6 } else { 3 }
}

/// The latest messages, warnings before notes where there is no room for all.
fn message_lines(view: &RunView, area: Rect, look: Look) -> Vec<Line<'static>> {
    let room = usize::from(most_message_rows(area.height));
    let newest = || view.messages.iter().enumerate().rev();
    let warnings = newest().filter(|(_, message)| message.kind == MessageKind::Warning);
    let mut shown: Vec<_> = warnings.take(room.div_ceil(2)).collect();
    let others: Vec<_> = newest().filter(|new| !shown.iter().any(|old| old.0 == new.0)).collect();
    shown.extend(others.into_iter().take(room - shown.len()));
    shown.sort_unstable_by_key(|(at, _)| *at);
    shown.into_iter().map(|(_, message)| message_line(message, look)).collect()
}

fn message_line(message: &Message, look: Look) -> Line<'static> {
    let text = printable(&message.text).replace(['\n', '\t'], " ");
    let place = if message.stage.is_empty() {
        String::new()
    } else {
        format!("{} {}  ", printable(&message.stage), thousands(message.step))
    };
    match message.kind {
        MessageKind::Warning => Line::styled(format!("{place}warning: {text}"), look.warning()),
        MessageKind::Note => Line::styled(format!("{place}{text}"), look.dim()),
    }
}

fn draw_foot(
    frame: &mut Frame<'_>,
    area: Rect,
    view: &RunView,
    page: &Page,
    look: Look,
    owner: Owner,
) {
    let mut keys = match owner {
        Owner::Run => vec!["q close (training goes on)", "ctrl-c save, stop"],
        Owner::Watcher => vec!["q end watching"],
    };
    keys.push(if page.samples { "s curves" } else { "s samples" });
    if page.samples {
        keys.push("up/down scroll");
    } else {
        keys.push(if page.log { "l linear" } else { "l log" });
    }
    if view.stages.len() > 1 {
        keys.push("tab stage");
    }
    let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
    frame.render_widget(Line::styled(fitted(&keys, area.width.into()), look.dim()), area);
}
