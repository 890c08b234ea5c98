//! Hashes a file in a background thread while it is written, if it is longer than one chunk.
//!
//! SHA-256 takes about as long as writing; in parallel both take as long as one.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use crate::hash::{CHUNK, Sha256};

/// Maximum number of chunks in the queue; more would only use memory.
const WAITING: usize = 4;

/// A hash that is being computed.
#[derive(Debug)]
pub(crate) enum BackgroundHasher {
    /// No chunk so far.
    Idle,
    /// A thread computes the hash.
    Thread {
        /// Sends full chunks to the thread.
        full: SyncSender<Vec<u8>>,
        /// Receives empty chunks for reuse.
        empty: Receiver<Vec<u8>>,
        /// Returns the hash of all chunks, in order.
        thread: JoinHandle<Sha256>,
    },
}

impl BackgroundHasher {
    /// Hashes a full chunk and returns an empty one.
    pub(crate) fn take(&mut self, chunk: Vec<u8>) -> io::Result<Vec<u8>> {
        if matches!(self, Self::Idle) {
            *self = Self::start()?;
        }
        let Self::Thread { full, empty, .. } = self else { return Ok(chunk) };
        full.send(chunk).map_err(io::Error::other)?;
        Ok(empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK)))
    }

    /// The hash of all chunks and of `rest`.
    pub(crate) fn finish(self, rest: &[u8]) -> io::Result<String> {
        let mut hash = match self {
            Self::Idle => Sha256::new(),
            Self::Thread { full, thread, .. } => {
                // The thread ends when its channel is closed.
                drop(full);
                thread.join().map_err(|_| io::Error::other("the hashing thread panicked"))?
            }
        };
        hash.update(rest);
        Ok(hash.finish_hex())
    }

    fn start() -> io::Result<Self> {
        let (full, chunks) = sync_channel::<Vec<u8>>(WAITING);
        let (give_back, empty) = channel();
        let thread = std::thread::Builder::new().name("hash".into()).spawn(move || {
            let mut hash = Sha256::new();
            for mut chunk in chunks {
                hash.update(&chunk);
                chunk.clear();
                // Fails if the receiver has been dropped, which is fine.
                let _ = give_back.send(chunk);
            }
            hash
        })?;
        Ok(Self::Thread { full, empty, thread })
    }
}
