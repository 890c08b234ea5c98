//! `temper watch`: shows a run that another process trains, or has trained, from the run's directory.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plan::RUNS_DIR;
use serde_json::json;
use train::signals::{self, SuspendFlag};
use watch::{Fit, Message, MessageKind, Owner, Page, RunReader, RunState, RunView, StepLine};

use super::print;
use crate::args::{LogStyle, WatchArgs};
use crate::failure::{Failure, Result};
use crate::render::live_line::LiveLine;
use crate::render::progress::{Style, warn};
use crate::render::stderr::Importance;
use crate::render::view::{Action, FullScreen, tty};

/// Time between two readings of the run's files.
const POLL: Duration = Duration::from_millis(500);
/// Time between two looks at keys and signals.
const TICK: Duration = Duration::from_millis(100);

pub(crate) fn run(args: &WatchArgs, log: LogStyle) -> Result<()> {
    let (dir, name) = find(args)?;
    let stop = signals::install()?;
    let mut watched = Watched::new(&dir, &name);
    // Piped output is read line by line.
    let is_piped = log == LogStyle::Auto && !std::io::stdout().is_terminal();
    if !is_piped && tty::is_full(log) {
        return watched.on_screen(&stop);
    }
    match Style::of(log) {
        Style::Live if !is_piped => watched.as_line(&stop),
        Style::Live | Style::Plain => watched.as_lines(&stop, false),
        Style::Json => watched.as_lines(&stop, true),
    }
}

/// Directory and name of the run: a path, a name, or by default the run that was changed last.
fn find(args: &WatchArgs) -> Result<(PathBuf, String)> {
    let dir = match &args.run {
        Some(run) => [run.clone(), Path::new(RUNS_DIR).join(run)]
            .into_iter()
            .find(|dir| is_run(dir))
            .ok_or_else(|| {
                let message = format!("no such run: `{}`", run.display());
                Failure::input(message, "`temper runs` lists all runs")
            })?,
        None => latest().ok_or_else(|| {
            let hint = "name a run's directory, or change to the directory where it was started";
            Failure::input(format!("no runs in `{RUNS_DIR}`"), hint)
        })?,
    };
    let absolute = std::path::absolute(&dir).unwrap_or_else(|_| dir.clone());
    let name = absolute.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok((dir, name.unwrap_or_default()))
}

fn is_run(dir: &Path) -> bool {
    dir.join("LOCK").is_file() && dir.join(train::RECIPE_FILE).is_file()
}

fn latest() -> Option<PathBuf> {
    let entries = std::fs::read_dir(RUNS_DIR).ok()?;
    let runs = entries.flatten().map(|entry| entry.path()).filter(|dir| is_run(dir));
    runs.max_by_key(|dir| {
        let changed =
            |name: &str| std::fs::metadata(dir.join(name)).and_then(|m| m.modified()).ok();
        changed(watch::STATUS_FILE).max(changed("LOCK"))
    })
}

/// A run that is read from its directory.
struct Watched {
    reader: RunReader,
    view: RunView,
    read: Option<Instant>,
}

impl Watched {
    fn new(dir: &Path, name: &str) -> Self {
        Self { reader: RunReader::new(dir), view: RunView::new(name), read: None }
    }

    /// Reads what is new, if it is time. Returns whether it did.
    fn poll(&mut self) -> bool {
        let is_time = self.read.is_none_or(|read| read.elapsed() >= POLL);
        if is_time {
            self.reader.poll(&mut self.view);
            self.read = Some(Instant::now());
        }
        is_time
    }

    /// The view, until it is closed.
    fn on_screen(&mut self, stop: &train::StopFlag) -> Result<()> {
        tty::restore_on_panic();
        let suspend = signals::on_suspend()?;
        let (mut screen, mut page) = (None, Page::default());
        let mut is_changed = true;
        while !stop.is_requested() {
            is_changed |= self.poll();
            if SuspendFlag::take(&suspend) {
                screen = None;
                suspend_now();
                continue;
            }
            if !tty::is_foreground() {
                screen = None;
                std::thread::sleep(TICK);
                continue;
            }
            if screen.is_none() {
                screen = FullScreen::open(Owner::Watcher, page);
                is_changed = true;
            }
            let Some(open) = &mut screen else {
                warn("the terminal cannot be read; lines are printed instead");
                return self.as_lines(stop, false);
            };
            if is_changed {
                open.draw(&self.view);
                is_changed = false;
            }
            let action = open.keys(&self.view, TICK);
            page = open.page();
            match action {
                Action::None => {}
                Action::Redraw => is_changed = true,
                Action::Close | Action::Interrupt | Action::Lost => return Ok(()),
                Action::Suspend => {
                    screen = None;
                    suspend_now();
                }
            }
        }
        Ok(())
    }

    /// One line that is drawn again and again, until the run ends.
    fn as_line(&mut self, stop: &train::StopFlag) -> Result<()> {
        let mut line = LiveLine::default();
        let mut known = Vec::new();
        loop {
            if self.poll() {
                for message in self.new_messages(&mut known) {
                    line.permanent(&text_of(&message), Importance::Once);
                }
                if let Some(text) = self.step_text(Fit::Columns(LiveLine::columns())) {
                    line.draw(&text);
                }
            }
            let is_over = !self.view.state().is_live();
            if is_over || stop.is_requested() {
                line.permanent(&self.end_text(is_over), Importance::Once);
                return Ok(());
            }
            std::thread::sleep(TICK);
        }
    }

    /// A line for each update that is new, until the run ends.
    fn as_lines(&mut self, stop: &train::StopFlag, json: bool) -> Result<()> {
        let (mut shown, mut known) = (None, Vec::new());
        loop {
            if self.poll() {
                for message in self.new_messages(&mut known) {
                    print(&if json {
                        format!("{}\n", json!({"event": "message", "message": message}))
                    } else {
                        text_of(&message) + "\n"
                    })?;
                }
                let latest =
                    self.view.progress().map(|(stage, row, ..)| (stage.to_owned(), row.step));
                if latest != shown {
                    print(&self.step(json))?;
                    shown = latest;
                }
            }
            let is_over = !self.view.state().is_live();
            if is_over || stop.is_requested() {
                return print(&if json {
                    format!("{}\n", json!({"event": "state", "state": self.view.state()}))
                } else {
                    self.end_text(is_over) + "\n"
                });
            }
            std::thread::sleep(TICK);
        }
    }

    /// Messages that were not shown yet.
    fn new_messages(&self, known: &mut Vec<Message>) -> Vec<Message> {
        let all: Vec<Message> = self.view.messages().cloned().collect();
        let before = std::mem::replace(known, all.clone());
        all.into_iter().filter(|message| !before.contains(message)).collect()
    }

    /// The latest update as a line of JSON or of text.
    fn step(&self, json: bool) -> String {
        let Some((stage, row, max_steps, left)) = self.view.progress() else {
            return String::new();
        };
        if json {
            let values = json!(row.values);
            let step = json!({
                "event": "step", "stage": stage, "step": row.step, "max_steps": max_steps,
                "seconds_left": left, "metrics": values,
            });
            return format!("{step}\n");
        }
        self.step_text(Fit::Whole).map_or_else(String::new, |line| line + "\n")
    }

    fn step_text(&self, fit: Fit) -> Option<String> {
        let (stage, row, max_steps, left) = self.view.progress()?;
        let unicode = tty::look().unicode;
        let line = StepLine { stage, max_steps, row, previous_loss: None, left, unicode };
        Some(line.text(fit))
    }

    fn end_text(&self, is_over: bool) -> String {
        match self.view.state() {
            RunState::Finished => "the run is finished".to_owned(),
            RunState::Stopped => "the run was stopped with a checkpoint saved".to_owned(),
            RunState::Failed | RunState::Unknown => "no process works on the run".to_owned(),
            RunState::Training | RunState::Stopping if is_over => String::new(),
            RunState::Training | RunState::Stopping => "the run goes on".to_owned(),
        }
    }
}

fn suspend_now() {
    crate::render::stderr::flush();
    signals::suspend();
}

fn text_of(message: &Message) -> String {
    match message.kind {
        MessageKind::Warning => format!("warning: {}", message.text),
        MessageKind::Note => format!("{:<10} {}", message.stage, message.text),
    }
}
