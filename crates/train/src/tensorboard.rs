//! TensorBoard event files, a second copy of the metrics whose failure never stops a run.
//!
//! Only the record framing and protocol buffers of tensorboard-rs are used. Its `SummaryWriter` writes on a thread that
//! panics when the disk is full and takes the caller down with the next value. Here the first failure ends the events of
//! the run with one warning.

// The only exception to "only fsio writes files": the library appends the records.
#![allow(clippy::disallowed_methods)]

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use protobuf::Message;
use tensorboard_proto::event::{Event, SessionLog, SessionLog_SessionStatus};
use tensorboard_rs::record_writer::RecordWriter;
use tensorboard_rs::summary::scalar;

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
fn new_file(dir: &Path) -> io::Result<RecordWriter<BufWriter<File>>> {
    let seconds = now().as_secs();
    for count in 0..1000 {
        let name = format!("events.out.tfevents.{seconds:010}.temper.{count:03}");
        match OpenOptions::new().write(true).create_new(true).open(dir.join(name)) {
            Ok(file) => return Ok(RecordWriter::new(BufWriter::new(file))),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
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
