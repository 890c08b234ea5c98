//! TensorBoard event files, a second copy of the metrics whose failure never stops a run.
//!
//! Only the record framing and protocol buffers of tensorboard-rs are used. Its `SummaryWriter` writes on a thread that
//! panics when the disk is full and takes the caller down with the next value. Here the first failure ends the events of
//! the run with one warning.

// The only exception to "only fsio writes files": the library appends the records.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use protobuf::Message as _;
use tensorboard_proto::event::{Event, SessionLog, SessionLog_SessionStatus};
use tensorboard_rs::record_writer::RecordWriter;
use tensorboard_rs::summary::scalar;

use super::proto::Message;

/// How the names of event files begin; a time in seconds follows.
const NAME_START: &str = "events.out.tfevents.";

/// Writes the event files of one directory.
pub struct EventWriter {
    dir: PathBuf,
    state: State,
    warning: Option<String>,
}

enum State {
    /// Nothing is written yet; the first value creates the file.
    NotStarted,
    Open(RecordWriter<BufWriter<File>>),
    /// A write failed; the run continues without events.
    Off,
}

impl EventWriter {
    /// A writer without a file yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), state: State::NotStarted, warning: None }
    }

    /// The directory of the files.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts a new file; TensorBoard hides values of older files from `step` on.
    pub fn start_session(&mut self, step: u64) {
        if matches!(self.state, State::Off) {
            return;
        }
        match open(&self.dir, step) {
            Ok(writer) => self.state = State::Open(writer),
            Err(e) => self.fail(&e),
        }
    }

    /// Writes one value of one curve.
    pub fn scalar(&mut self, tag: &str, value: f64, step: u64) {
        if matches!(self.state, State::NotStarted) {
            self.start_session(step);
        }
        let State::Open(writer) = &mut self.state else { return };
        let mut event = event_at(step);
        event.set_summary(scalar(tag, value as f32));
        if let Err(e) = write(writer, &event) {
            self.fail(&e);
        }
    }

    /// Writes a text, which the tab "Text" shows as Markdown.
    pub fn text(&mut self, tag: &str, text: &str, step: u64) {
        // A tensor of one string (DT_STRING).
        let tensor = Message::new().int(1, 7).message(2, &Message::new()).text(8, text);
        self.tensor(tag, "text", &[], &tensor, step);
    }

    /// Writes settings of the run, which the tab "HParams" shows beside its metrics.
    pub fn hyperparameters(&mut self, settings: &BTreeMap<String, String>) {
        let pairs = settings.iter().fold(Message::new(), |all, (key, value)| {
            let value = match value.parse::<f64>() {
                Ok(number) if number.is_finite() => Message::new().double(2, number),
                Ok(_) | Err(_) => Message::new().text(3, value),
            };
            all.message(1, &Message::new().text(1, key).message(2, &value))
        });
        let start = pairs.double(5, now().as_secs_f64());
        let content = Message::new().message(3, &start).into_bytes();
        // A tensor without elements (DT_FLOAT, shape [0]).
        let shape = Message::new().message(2, &Message::new());
        let tensor = Message::new().int(1, 1).message(2, &shape);
        self.tensor("_hparams_/session_start_info", "hparams", &content, &tensor, 0);
    }

    /// Writes a value of a plugin.
    fn tensor(&mut self, tag: &str, plugin: &str, content: &[u8], tensor: &Message, step: u64) {
        if matches!(self.state, State::NotStarted) {
            self.start_session(step);
        }
        let State::Open(writer) = &mut self.state else { return };
        let plugin = Message::new().text(1, plugin).text(2, content);
        let metadata = Message::new().message(1, &plugin);
        let value = Message::new().text(1, tag).message(8, tensor).message(9, &metadata);
        let event = Message::new()
            .double(1, now().as_secs_f64())
            .int(2, step)
            .message(5, &Message::new().message(1, &value));
        if let Err(e) = writer.write(&event.into_bytes()) {
            self.fail(&e);
        }
    }

    /// Flushes buffered records to the operating system.
    pub fn flush(&mut self) {
        if let State::Open(writer) = &mut self.state
            && let Err(e) = writer.flush()
        {
            self.fail(&e);
        }
    }

    /// The warning about a failure; returned once.
    pub fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    fn fail(&mut self, error: &io::Error) {
        self.state = State::Off;
        let dir = self.dir.display();
        self.warning = Some(format!("{dir}: no more TensorBoard events in this run: {error}"));
    }
}

fn open(dir: &Path, step: u64) -> io::Result<RecordWriter<BufWriter<File>>> {
    let mut file = new_file(dir)?;
    let mut version = event_at(0);
    version.set_file_version("brain.Event:2".into());
    write(&mut file, &version)?;
    let mut start = SessionLog::new();
    start.set_status(SessionLog_SessionStatus::START);
    let mut event = event_at(step);
    event.set_session_log(start);
    write(&mut file, &event)?;
    file.flush()?;
    Ok(file)
}

/// Creates a file whose name sorts after earlier ones, even within the same second.
/// A file whose name is after those of all others, by which TensorBoard orders them, even if the clock was set back.
fn new_file(dir: &Path) -> io::Result<RecordWriter<BufWriter<File>>> {
    let seconds = match newest_second(dir) {
        Some(newest) if newest > now().as_secs() => newest.saturating_add(1),
        Some(_) | None => now().as_secs(),
    };
    for count in 0..1000 {
        let name = format!("{NAME_START}{seconds:010}.temper.{count:03}");
        match OpenOptions::new().write(true).create_new(true).open(dir.join(name)) {
            Ok(file) => return Ok(RecordWriter::new(BufWriter::new(file))),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// The largest time in the name of an events file.
fn newest_second(dir: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    let second = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_prefix(NAME_START)?.split('.').next()?.parse().ok()
    };
    entries.filter_map(second).max()
}

fn event_at(step: u64) -> Event {
    let mut event = Event::new();
    event.set_wall_time(now().as_secs_f64());
    event.set_step(step as i64);
    event
}

fn write(writer: &mut RecordWriter<BufWriter<File>>, event: &Event) -> io::Result<()> {
    let bytes = event.write_to_bytes().map_err(io::Error::other)?;
    writer.write(&bytes)
}

fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
