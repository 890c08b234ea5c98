//! SIGTERM and SIGINT: the first asks the run to stop after its step, a second one ends it at once.
//!
//! The only place with signal handlers. It deliberately saves nothing: the loop does, when it sees
//! the flag.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::{Error, Result};

/// Whether somebody asked the run to stop; cheap to clone, all clones see the same.
#[derive(Clone, Debug, Default)]
pub struct StopFlag {
    flag: Arc<AtomicBool>,
}

impl StopFlag {
    /// A flag that only `request` sets.
    pub fn manual() -> Self {
        Self::default()
    }

    /// Whether to stop.
    pub fn is_requested(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }

    /// Asks to stop, as a first signal does.
    pub fn request(&self) {
        self.flag.store(true, Ordering::SeqCst);
    }
}

/// Installs the handlers, once a process; later calls return the same flag.
pub fn install() -> Result<StopFlag> {
    static INSTALLED: OnceLock<StopFlag> = OnceLock::new();
    if let Some(flag) = INSTALLED.get() {
        return Ok(flag.clone());
    }
    let stop = StopFlag::default();
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the first signal must find the flag unset here and set it after.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop.flag))
            .and_then(|_| flag::register(signal, Arc::clone(&stop.flag)))
            .map_err(|source| Error::Signals { source })?;
    }
    Ok(INSTALLED.get_or_init(|| stop).clone())
}
