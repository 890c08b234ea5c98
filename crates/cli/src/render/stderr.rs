//! Output to stderr by a thread of its own, so that a terminal that nobody reads does not stop a training run.
//!
//! While the view of a run has the terminal, lines wait until it is closed, and only frames are written.
//!
//! Up to a limit, lines wait in memory. Beyond it, progress is dropped and counted; warnings and everything else that is
//! printed once are kept.

use std::collections::VecDeque;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Texts that may wait before progress is dropped.
const MAX_WAITING: usize = 4096;
/// Lines that may wait for the end of the view.
const MAX_HELD: usize = 1000;
/// How long the end of the process waits for a stderr that takes nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much a text matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Importance {
    /// One of many lines of progress.
    Progress,
    /// Printed once.
    Once,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<String>,
    /// Whether the thread is writing a text that it has taken from the queue.
    is_writing: bool,
    n_dropped: u64,
    n_written: u64,
    /// Lines that wait for the end of the view, while it has the terminal.
    held: Option<Held>,
}

#[derive(Default)]
struct Held {
    texts: VecDeque<String>,
    n_dropped: u64,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| Shared { queue: Mutex::default(), changed: Condvar::new() })
}

fn lock() -> MutexGuard<'static, Queue> {
    // Every change of the queue is complete before its lock is released.
    shared().queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Queues a text. A closed stderr is ignored.
pub(crate) fn write(text: &str, importance: Importance) {
    static HAS_THREAD: OnceLock<bool> = OnceLock::new();
    let start = || std::thread::Builder::new().name("stderr".into()).spawn(write_all).is_ok();
    if !*HAS_THREAD.get_or_init(start) {
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
        return;
    }
    let mut queue = lock();
    queue.push(text, importance);
    drop(queue);
    shared().changed.notify_all();
}

/// Gives the terminal to a view, which `enter` prepares.
pub(crate) fn hold(enter: &str) {
    write(enter, Importance::Once);
    lock().held.get_or_insert_default();
}

/// Queues a frame of the view.
pub(crate) fn draw(frame: &str) {
    let mut queue = lock();
    if queue.held.is_some() && !frame.is_empty() {
        queue.waiting.push_back(frame.to_owned());
        drop(queue);
        shared().changed.notify_all();
    }
}

/// Takes the terminal back by `leave`, and writes what has waited.
pub(crate) fn release(leave: &str) {
    let mut queue = lock();
    let Some(held) = queue.held.take() else { return };
    queue.waiting.push_back(leave.to_owned());
    if held.n_dropped > 0 {
        queue.waiting.push_back(format!("({} earlier lines are left out)\n", held.n_dropped));
    }
    queue.waiting.extend(held.texts);
    drop(queue);
    shared().changed.notify_all();
}

/// Whether everything is written.
pub(crate) fn is_idle() -> bool {
    let queue = lock();
    queue.waiting.is_empty() && !queue.is_writing
}

impl Queue {
    fn push(&mut self, text: &str, importance: Importance) {
        if let Some(held) = &mut self.held {
            held.push(text, importance);
            return;
        }
        if importance == Importance::Progress && self.waiting.len() >= MAX_WAITING {
            self.n_dropped += 1;
            return;
        }
        if self.n_dropped > 0 && self.waiting.len() < MAX_WAITING {
            let note = format!(
                "({} lines of progress were dropped: stderr was not read)\n",
                self.n_dropped
            );
            self.n_dropped = 0;
            // A reader of JSON lines expects nothing else.
            if std::io::stderr().is_terminal() {
                self.waiting.push_back(note);
            }
        }
        self.waiting.push_back(text.to_owned());
    }
}

impl Held {
    /// The view shows progress itself.
    fn push(&mut self, text: &str, importance: Importance) {
        if importance == Importance::Progress {
            return;
        }
        self.texts.push_back(text.to_owned());
        if self.texts.len() > MAX_HELD {
            self.texts.pop_front();
            self.n_dropped += 1;
        }
    }
}

/// The thread: writes what is queued, one text at a time.
fn write_all() {
    loop {
        let mut queue = lock();
        let text = loop {
            if let Some(text) = queue.waiting.pop_front() {
                break text;
            }
            queue = shared().changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        queue.is_writing = true;
        drop(queue);
        let _ = std::io::stderr().write_all(text.as_bytes());
        let mut queue = lock();
        queue.is_writing = false;
        queue.n_written += 1;
        drop(queue);
        shared().changed.notify_all();
    }
}

/// Waits until everything is written, or until stderr has taken nothing for a few seconds.
pub(crate) fn flush() {
    let mut queue = lock();
    let (mut n_written, mut since) = (queue.n_written, Instant::now());
    while queue.is_writing || !queue.waiting.is_empty() {
        let waited = shared().changed.wait_timeout(queue, Duration::from_millis(200));
        queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        if queue.n_written != n_written {
            (n_written, since) = (queue.n_written, Instant::now());
        } else if since.elapsed() > PATIENCE {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_dropped_and_warnings_are_not() {
        let mut queue = Queue::default();
        for n in 0..MAX_WAITING + 10 {
            queue.push(&format!("step {n}\n"), Importance::Progress);
        }
        queue.push("warning\n", Importance::Once);
        assert_eq!((queue.waiting.len(), queue.n_dropped), (MAX_WAITING + 1, 10));
        assert_eq!(queue.waiting.back().map(String::as_str), Some("warning\n"));
        queue.waiting.clear();
        queue.push("step\n", Importance::Progress);
        assert_eq!(queue.n_dropped, 0);
        assert_eq!(queue.waiting.back().map(String::as_str), Some("step\n"));
    }

    #[test]
    fn lines_wait_while_a_view_has_the_terminal() {
        let mut queue = Queue { held: Some(Held::default()), ..Queue::default() };
        queue.push("step 1\n", Importance::Progress);
        for n in 0..=MAX_HELD {
            queue.push(&format!("note {n}\n"), Importance::Once);
        }
        assert!(queue.waiting.is_empty());
        let held = queue.held.expect("lines");
        assert_eq!((held.texts.len(), held.n_dropped), (MAX_HELD, 1));
        assert_eq!(held.texts.front().map(String::as_str), Some("note 1\n"));
    }
}
