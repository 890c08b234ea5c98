//! SIGTERM and SIGINT: the first signal stops the run after its current step, a second one ends the process at once.
//!
//! These are the only signal handlers. The training loop polls the flag and saves a checkpoint.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::{Error, Result};

/// A request to stop, shared by all clones.
#[derive(Clone, Debug, Default)]
pub struct StopFlag {
    flag: Arc<AtomicBool>,
}

impl StopFlag {
    /// A flag that no signal sets.
    pub fn manual() -> Self {
        Self::default()
    }

    /// Whether a stop was requested.
    pub fn is_requested(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }

    /// Requests a stop, as the first signal does.
    pub fn request(&self) {
        self.flag.store(true, Ordering::SeqCst);
    }
}

/// Installs the handlers once per process; later calls return the same flag.
pub fn install() -> Result<StopFlag> {
    static INSTALLED: OnceLock<StopFlag> = OnceLock::new();
    if let Some(flag) = INSTALLED.get() {
        return Ok(flag.clone());
    }
    let stop = StopFlag::default();
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the first signal must find the flag unset here and set it afterwards.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop.flag))
            .and_then(|_| flag::register(signal, Arc::clone(&stop.flag)))
            .map_err(|source| Error::Signals { source })?;
    }
    Ok(INSTALLED.get_or_init(|| stop).clone())
}
