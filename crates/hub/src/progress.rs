//! Progress of a download, for display.

use std::time::Duration;

/// Receives the progress of a download.
pub trait Watch {
    /// Called for each event, in order.
    fn event(&mut self, event: Event<'_>);
}

/// An event of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The files are known.
    Listed {
        /// Commit of the repository.
        revision: &'a str,
        /// Number of files to transfer.
        n_files: usize,
        /// Bytes to transfer, without those of earlier attempts.
        bytes: u64,
    },
    /// A part of a file that an earlier process transferred is used.
    Resumed {
        /// Path in the repository.
        path: &'a str,
        /// Bytes of it that are there.
        bytes: u64,
    },
    /// Bytes of a file have arrived.
    Received {
        /// Path in the repository.
        path: &'a str,
        /// Bytes of it that are there.
        bytes: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// A file is complete, and its hash is right.
    Finished {
        /// Path in the repository.
        path: &'a str,
        /// Its size in bytes.
        size: u64,
    },
    /// A request failed and is repeated after a pause.
    Waiting {
        /// The reason.
        reason: &'a str,
        /// The pause.
        pause: Duration,
    },
    /// A sentence for the user.
    Note(&'a str),
}
