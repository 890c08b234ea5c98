//! Progress of `temper get` on stderr.

use std::time::{Duration, Instant};

use hub::Event;
use serde_json::json;

use super::progress::{Screen, Style, write_json};
use super::table;
use crate::args::LogStyle;

/// Interval between two lines about one file on a pipe.
const INTERVAL: Duration = Duration::from_secs(5);

/// Progress of a download.
pub(crate) struct DownloadProgress {
    screen: Screen,
    started: Instant,
    /// Bytes to transfer in this process.
    n_bytes: u64,
    /// Bytes that have arrived in this process.
    n_received: u64,
    /// Bytes of the current file that are there.
    n_of_file: u64,
    last_line: Instant,
}

impl DownloadProgress {
    pub(crate) fn new(log: LogStyle) -> Self {
        let now = Instant::now();
        Self {
            screen: Screen::new(log),
            started: now,
            n_bytes: 0,
            n_received: 0,
            n_of_file: 0,
            last_line: now,
        }
    }

    fn received(&mut self, path: &str, bytes: u64, size: u64) {
        // A file that starts again has fewer bytes than before.
        self.n_received += bytes.saturating_sub(self.n_of_file);
        self.n_of_file = bytes;
        let seconds = self.started.elapsed().as_secs_f64().max(1e-3);
        let rate = self.n_received as f64 / seconds;
        let left = self.n_bytes.saturating_sub(self.n_received) as f64 / rate.max(1.0);
        let text = format!(
            "{path}  {} of {}  all {:3.0} %  {}/s  left {}",
            table::bytes(bytes),
            table::bytes(size),
            (100.0 * self.n_received as f64 / self.n_bytes.max(1) as f64).min(100.0),
            table::bytes(rate as u64),
            table::clock(left),
        );
        let is_due = self.last_line.elapsed() > INTERVAL;
        match self.screen.style {
            Style::Live => self.screen.live(&text, false),
            Style::Plain if is_due => {
                self.last_line = Instant::now();
                self.screen.line(&text);
            }
            Style::Json if is_due => {
                self.last_line = Instant::now();
                write_json(
                    &json!({"event": "received", "path": path, "bytes": bytes, "size": size}),
                );
            }
            Style::Plain | Style::Json => {}
        }
    }

    fn line(&mut self, text: &str, value: serde_json::Value) {
        match self.screen.style {
            Style::Json => write_json(&value),
            Style::Live | Style::Plain => self.screen.line(text),
        }
    }
}

impl hub::Watch for DownloadProgress {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Listed { revision, n_files, bytes } => {
                self.n_bytes = bytes;
                self.started = Instant::now();
                let text = format!(
                    "revision {revision}: {} to download, {}",
                    table::counted(n_files as u64, "file"),
                    table::bytes(bytes)
                );
                let value = json!({"event": "listed", "revision": revision, "files": n_files, "bytes": bytes});
                self.line(&text, value);
            }
            Event::Resumed { path, bytes } => {
                self.n_of_file = bytes;
                let text = format!("{path}: continues after {}", table::bytes(bytes));
                self.line(&text, json!({"event": "resumed", "path": path, "bytes": bytes}));
            }
            Event::Received { path, bytes, size } => self.received(path, bytes, size),
            Event::Finished { path, size } => {
                self.n_of_file = 0;
                let text = format!("{path}  {}", table::bytes(size));
                self.line(&text, json!({"event": "finished", "path": path, "bytes": size}));
            }
            Event::Waiting { reason, pause } => {
                let seconds = pause.as_secs_f64();
                let text = format!("{reason}; next attempt in {seconds:.0} s");
                self.line(&text, json!({"event": "waiting", "reason": reason, "seconds": seconds}));
            }
            Event::Note(text) => {
                self.line(&format!("note: {text}"), json!({"event": "note", "text": text}));
            }
        }
    }
}

impl Drop for DownloadProgress {
    fn drop(&mut self) {
        self.screen.remove_live();
    }
}
