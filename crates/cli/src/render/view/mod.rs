//! The full-screen view of a run: a thread of its own draws it, reads its keys, and writes the run's `status.json`.
//!
//! Training never waits for the terminal: the thread takes events from a queue, and hands finished frames to the writer of
//! stderr, one at a time.

mod backend;
mod full_screen;
mod keys;
mod live;
pub(crate) mod tty;
mod updates;

pub(crate) use full_screen::{Action, FullScreen};
pub(crate) use live::{Live, LiveSettings};
pub(crate) use updates::{step_row, update_of};
