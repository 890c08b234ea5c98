//! Hashing beside writing: a thread of its own takes over once a file is longer than one chunk.
//!
//! SHA-256 takes about as long as writing; side by side they take as long as one of them. It
//! deliberately never touches the file.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use crate::hash::{CHUNK, Sha256};

/// Chunks that wait to be hashed; more would only use memory.
const WAITING: usize = 4;

/// A hash that is being computed.
#[derive(Debug)]
pub(crate) enum BackgroundHasher {
    /// Nothing was hashed yet.
    Idle,
    /// A thread hashes.
    Thread {
        /// Full chunks go there.
        full: SyncSender<Vec<u8>>,
        /// Empty ones come back.
        empty: Receiver<Vec<u8>>,
        /// Gives the hash of all chunks, in order.
        thread: JoinHandle<Sha256>,
    },
}

impl BackgroundHasher {
    /// Hashes a full chunk and gives back an empty one.
    pub(crate) fn take(&mut self, chunk: Vec<u8>) -> io::Result<Vec<u8>> {
        if matches!(self, Self::Idle) {
            *self = Self::start()?;
        }
        let Self::Thread { full, empty, .. } = self else { return Ok(chunk) };
        full.send(chunk).map_err(io::Error::other)?;
        Ok(empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK)))
    }

    /// The hash of all chunks so far and of what is left.
    pub(crate) fn finish(self, rest: &[u8]) -> io::Result<String> {
        let mut hash = match self {
            Self::Idle => Sha256::new(),
            Self::Thread { full, thread, .. } => {
                // The thread ends when nobody can send any more.
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
                // Nobody may be waiting for it any more.
                let _ = give_back.send(chunk);
            }
            hash
        })?;
        Ok(Self::Thread { full, empty, thread })
    }
}
