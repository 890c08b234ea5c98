//! Progress on stderr: a live line on a terminal, plain lines on a pipe, or JSON.
//!
//! Errors of writing are ignored, because a closed stderr must not end a training run.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use train::{EvalRow, Event, Progress};
use watch::{Fit, Pace, RunState, StepLine};

use super::live_line::LiveLine;
use super::printable::printable;
use super::stderr::{self, Importance};
use super::table;
use super::task_metrics::shown_metrics;
use super::view::{Live, step_row, tty, update_of};
use crate::args::LogStyle;

/// Maximum number of characters of a sample.
const SAMPLE_CHARS: usize = 100;
/// Longest prompt that is shown before its answer.
const PROMPT_CHARS: usize = 60;

/// Style of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Live,
    Plain,
    Json,
}

impl Style {
    pub(crate) fn of(log: LogStyle) -> Self {
        match log {
            LogStyle::Json => Self::Json,
            LogStyle::Plain => Self::Plain,
            LogStyle::Auto | LogStyle::Full | LogStyle::Line if tty::is_capable() => Self::Live,
            LogStyle::Auto | LogStyle::Full | LogStyle::Line => Self::Plain,
        }
    }
}

/// Output to stderr, with at most one live line at the end.
pub(super) struct Screen {
    pub(super) style: Style,
    line: LiveLine,
}

impl Screen {
    pub(super) fn new(log: LogStyle) -> Self {
        Self { style: Style::of(log), line: LiveLine::default() }
    }

    /// Prints a permanent line.
    pub(super) fn line(&mut self, text: &str) {
        self.line.permanent(text, Importance::Once);
    }

    /// Prints a permanent line of which there are many.
    fn progress_line(&mut self, text: &str) {
        self.line.permanent(text, Importance::Progress);
    }

    /// Redraws the live line, cut to the terminal's width so that it does not wrap.
    pub(super) fn live(&mut self, text: &str, force: bool) {
        if force || self.line.is_due() {
            self.line.draw(text);
        }
    }

    /// Removes the live line.
    pub(super) fn remove_live(&mut self) {
        self.line.remove();
    }

    /// Leaves the live line where it is. Returns whether there is one.
    pub(super) fn keep_live(&mut self) -> bool {
        self.line.keep()
    }
}

pub(super) fn write_json(value: &Value) {
    write_json_as(value, Importance::Once);
}

fn write_json_as(value: &Value, importance: Importance) {
    stderr::write(&format!("{}\n", printable(&value.to_string())), importance);
}

/// Writes text to stderr.
pub(crate) fn write_stderr(text: &str) {
    stderr::write(text, Importance::Once);
}

/// Writes a warning to stderr, for commands without progress.
pub(crate) fn warn(message: &str) {
    write_stderr(&format!("warning: {}\n", printable(message)));
    stderr::flush();
}

/// Progress of planning.
pub(crate) struct PlanProgress {
    screen: Screen,
    last: Option<Instant>,
}

impl PlanProgress {
    pub(crate) fn new(log: LogStyle) -> Self {
        Self { screen: Screen::new(log), last: None }
    }

    /// Says that another process is making the same cache.
    fn waiting(&mut self, name: &str) {
        match self.screen.style {
            Style::Json => write_json(&json!({"event": "waiting", "for": name})),
            Style::Live | Style::Plain => self.screen.line(&format!(
                "{name:<10} waiting for another process that is preparing the same data"
            )),
        }
    }
}

impl plan::Watch for PlanProgress {
    fn training_tokenizer(&mut self) {
        match self.screen.style {
            Style::Json => write_json(&json!({"event": "training_tokenizer"})),
            Style::Live | Style::Plain => self.screen.line("tokenizer  training"),
        }
    }

    fn waiting_for_tokenizer(&mut self) {
        self.waiting("tokenizer");
    }

    fn tokenizing(&mut self, stage: &str, progress: &data::Progress) {
        if progress.waiting {
            self.waiting(stage);
            return;
        }
        let share = progress.bytes_read as f64 / progress.n_bytes.max(1) as f64;
        let text = format!(
            "{stage:<10} reading {}  {:3.0} %  {} {}, {} tokens",
            progress.path,
            100.0 * share.min(1.0),
            table::thousands(progress.n_rows),
            progress.unit,
            table::thousands(progress.n_tokens),
        );
        match self.screen.style {
            Style::Live => self.screen.live(&text, false),
            Style::Json => write_json(&json!({
                "event": "tokenizing", "stage": stage, "path": progress.path,
                "bytes_read": progress.bytes_read, "bytes": progress.n_bytes,
                "rows": progress.n_rows, "tokens": progress.n_tokens,
            })),
            Style::Plain => {
                // At most one line every five seconds on a pipe.
                if self.last.is_none_or(|last| last.elapsed() > Duration::from_secs(5)) {
                    self.last = Some(Instant::now());
                    self.screen.line(&text);
                }
            }
        }
    }
}

impl Drop for PlanProgress {
    fn drop(&mut self) {
        self.screen.remove_live();
    }
}

/// Progress of a run.
pub(crate) struct RunProgress {
    screen: Screen,
    stage: String,
    max_steps: u64,
    pace: Pace,
    /// When this process started.
    started: Instant,
    last_loss: Option<f64>,
    stopping: bool,
    live: Option<Live>,
    /// State of the run for the end of the thread.
    state: RunState,
}

impl RunProgress {
    pub(crate) fn new(log: LogStyle) -> Self {
        Self {
            screen: Screen::new(log),
            stage: String::new(),
            max_steps: 0,
            pace: Pace::default(),
            started: Instant::now(),
            last_loss: None,
            stopping: false,
            live: None,
            state: RunState::Failed,
        }
    }

    /// Sends all further events to the thread of the run, too.
    pub(crate) fn attach(&mut self, live: Live) {
        self.live = Some(live);
    }

    /// Says how the run ends. Without it, it has failed.
    pub(crate) fn ends(&mut self, state: RunState) {
        self.state = state;
    }

    /// Prints a permanent line.
    pub(crate) fn note(&mut self, text: &str) {
        match self.screen.style {
            Style::Json => write_json(&json!({"event": "note", "message": text})),
            Style::Live | Style::Plain => self.screen.line(text),
        }
    }

    /// A prompt of one short line, before its answer. Those of chats in a template are long and say little.
    fn shown_prompt(&self, prompt: &str) -> String {
        let is_short = prompt.chars().count() <= PROMPT_CHARS && !prompt.contains('\n');
        if prompt.trim().is_empty() || !is_short {
            return String::new();
        }
        let unicode = self.screen.style != Style::Live || tty::look().unicode;
        format!("{prompt:?} {} ", if unicode { "→" } else { "->" })
    }

    fn step_line(&self, row: &train::StepRow, fit: Fit) -> String {
        let line = StepLine {
            stage: &self.stage,
            max_steps: self.max_steps,
            row: &step_row(row),
            previous_loss: self.last_loss,
            left: self.pace.left(row.step, self.max_steps, self.started.elapsed().as_secs_f64()),
            unicode: self.screen.style != Style::Live || tty::look().unicode,
        };
        line.text(fit)
    }
}

/// The result on the validation data: the main number of the stage, and a second one where there is one.
fn validated(row: &EvalRow) -> String {
    let of = |name: &str| row.extra.get(name);
    let percent = |share: &f64| format!("{:.1} %", 100.0 * share);
    if let (Some(score), Some(kl)) = (of("score"), of("kl")) {
        return format!("score {score:.3}  KL {kl:.2} nats/answer");
    }
    if let Some(reward) = of("reward") {
        let ended = of("ended").map(|share| format!("  {} of the answers ended", percent(share)));
        return format!("reward {reward:.3}{}", ended.unwrap_or_default());
    }
    let Some(loss) = row.eval_loss else { return String::new() };
    let accuracy = of("accuracy").map(|share| format!(" (accuracy {})", percent(share)));
    let bits = of("bits_per_byte").map(|bits| format!(" ({bits:.3} bits/byte)"));
    format!("val loss {loss:.4}{}", accuracy.or(bits).unwrap_or_default())
}

impl Drop for RunProgress {
    fn drop(&mut self) {
        self.screen.remove_live();
        if let Some(live) = &mut self.live {
            live.end(self.state);
        }
    }
}

impl Progress for RunProgress {
    fn event(&mut self, event: &Event) {
        if let (Some(live), Some(update)) = (&self.live, update_of(event)) {
            live.push(update);
        }
        if self.screen.style == Style::Json {
            if let Some(value) = as_json(&self.stage, event) {
                let is_step = matches!(event, Event::Step { .. });
                let importance = if is_step { Importance::Progress } else { Importance::Once };
                write_json_as(&value, importance);
            }
            if let Event::StageStarted { stage, .. } = event {
                self.stage.clone_from(stage);
            }
            return;
        }
        match event {
            Event::StageStarted {
                stage, max_steps, n_parameters, n_trained, resumed_from, ..
            } => {
                self.stage.clone_from(stage);
                (self.max_steps, self.pace, self.last_loss) = (*max_steps, Pace::default(), None);
                let how = match resumed_from {
                    Some(path) => format!("resuming from {}", path.display()),
                    None => "starting".to_owned(),
                };
                let trained = table::trained(*n_trained, *n_parameters);
                self.screen.line(&format!("{stage:<10} {how}: {max_steps} steps, {trained}"));
            }
            Event::Step { row, logged } => {
                self.pace.note(row.step, self.started.elapsed().as_secs_f64());
                match self.screen.style {
                    Style::Live => {
                        if row.step >= self.max_steps || self.screen.line.is_due() {
                            let fit = Fit::Columns(LiveLine::columns());
                            self.screen.line.draw(&self.step_line(row, fit));
                        }
                    }
                    Style::Plain | Style::Json => {
                        if *logged {
                            let line = self.step_line(row, Fit::Whole);
                            self.screen.progress_line(&line);
                        }
                    }
                }
                if *logged {
                    self.last_loss = Some(row.loss);
                }
            }
            Event::Eval { row, is_best } => {
                let best = if *is_best { "  best so far" } else { "" };
                let of_tasks =
                    shown_metrics(row.extra.iter().map(|(name, value)| (name.as_str(), *value)));
                let parts = std::iter::once(validated(row)).chain(of_tasks);
                let parts: Vec<String> = parts.filter(|part| !part.is_empty()).collect();
                let measured = parts.join("  ");
                self.screen
                    .line(&format!("{:<10} step {}  {measured}{best}", self.stage, row.step));
            }
            Event::Sample(row) => {
                let short = |text: &str| -> String {
                    text.replace('\n', "⏎").chars().take(SAMPLE_CHARS).collect()
                };
                let shown = short(&row.text);
                let score =
                    row.score.map(|score| format!("score {score:.2}  ")).unwrap_or_default();
                let before = row.before.as_ref();
                let before = before.map(|text| format!("  before: {:?}", short(text)));
                let before = before.unwrap_or_default();
                let prompt = self.shown_prompt(&row.prompt);
                let (stage, step) = (&self.stage, row.step);
                let line = format!("{stage:<10} step {step}  {score}{prompt}{shown:?}{before}");
                self.screen.line(&line);
            }
            Event::CheckpointSaved { path, .. } => {
                if self.screen.style == Style::Plain || self.stopping {
                    self.screen.line(&format!("{:<10} saved {}", self.stage, path.display()));
                }
            }
            Event::CheckpointRejected { message, moved_to } => {
                self.screen.line(&format!("{message}; moved to {}", moved_to.display()));
            }
            Event::Note { message } => {
                self.screen.line(&format!("{:<10} {message}", self.stage));
            }
            Event::Warning { message } => self.screen.line(&format!("warning: {message}")),
            Event::Stopping { step } => {
                self.stopping = true;
                self.screen.line(&format!("finishing step {step} (again to stop at once)"));
            }
            Event::Finished { stage, steps, seconds, path } => {
                let time = table::clock(*seconds);
                self.screen.line(&format!(
                    "{stage:<10} {steps} steps in {time}, saved in {}",
                    path.display()
                ));
            }
        }
    }
}

/// The event as one JSON object; none for a step that is not logged.
fn as_json(stage: &str, event: &Event) -> Option<Value> {
    let (kind, body) = match event {
        Event::StageStarted { stage, step, max_steps, n_parameters, n_trained, resumed_from } => {
            let resumed_from = resumed_from.as_ref().map(|path| path.display().to_string());
            let body = json!({
                "stage": stage, "step": step, "max_steps": max_steps, "parameters": n_parameters,
                "trained": n_trained, "resumed_from": resumed_from,
            });
            ("stage_started", body)
        }
        Event::Step { logged: false, .. } => return None,
        Event::Step { row, .. } => ("step", serde_json::to_value(row).ok()?),
        Event::Eval { row, .. } => ("eval", serde_json::to_value(row).ok()?),
        Event::Sample(row) => ("sample", serde_json::to_value(row).ok()?),
        Event::CheckpointSaved { step, path, seconds } => {
            let path = path.display().to_string();
            ("checkpoint_saved", json!({"step": step, "path": path, "seconds": seconds}))
        }
        Event::CheckpointRejected { message, moved_to } => {
            let moved_to = moved_to.display().to_string();
            ("checkpoint_rejected", json!({"message": message, "moved_to": moved_to}))
        }
        Event::Note { message } => ("note", json!({"message": message})),
        Event::Warning { message } => ("warning", json!({"message": message})),
        Event::Stopping { step } => ("stopping", json!({"step": step})),
        Event::Finished { stage, steps, seconds, path } => {
            let path = path.display().to_string();
            ("finished", json!({"stage": stage, "steps": steps, "seconds": seconds, "path": path}))
        }
    };
    let mut value = json!({"event": kind, "stage": stage});
    if let (Value::Object(all), Value::Object(body)) = (&mut value, body) {
        all.extend(body);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::{EvalRow, validated};

    fn shown(eval_loss: Option<f64>, extra: &[(&str, f64)]) -> String {
        let extra = extra.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        validated(&EvalRow { step: 3, eval_loss, n_targets: 7, extra })
    }

    #[test]
    fn an_evaluation_shows_what_its_stage_is_about() {
        let bits = [("bits_per_byte", 1.25), ("perplexity", 9.0)];
        assert_eq!(shown(Some(2.5), &bits), "val loss 2.5000 (1.250 bits/byte)");
        assert_eq!(shown(Some(0.5), &[("accuracy", 0.75)]), "val loss 0.5000 (accuracy 75.0 %)");
        // The loss of a policy is its negated reward.
        let group = [("reward", 0.149), ("ended", 0.056)];
        assert_eq!(shown(Some(-0.149), &group), "reward 0.149  5.6 % of the answers ended");
        assert_eq!(
            shown(Some(-1.0), &[("score", 1.0), ("kl", 2.0)]),
            "score 1.000  KL 2.00 nats/answer"
        );
        assert_eq!(shown(None, &[]), "");
    }
}
