//! SIGTERM, SIGINT and SIGHUP: the first signal stops the run after its current step; a second SIGTERM or SIGINT ends the
//! process at once.
//!
//! The training loop polls the flag and saves a checkpoint. SIGHUP stays ignored where it was ignored at the start, as under
//! `nohup`. SIGTSTP pauses the process after the view of a run has left the terminal. SIGXFSZ, which a write beyond the limit of file sizes causes, is replaced by that write's error.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

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
    let hangs_up = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the first signal must find the flag unset here and set it afterwards.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop.flag))
            .and_then(|_| flag::register(signal, Arc::clone(&stop.flag)))
            .map_err(|source| Error::Signals { source })?;
    }
    // A closed terminal sends this signal, and the shell that is closed with it sends it again: the second one says nothing
    // new.
    if let Some(signal) = hangs_up {
        flag::register(signal, Arc::clone(&stop.flag))
            .map_err(|source| Error::Signals { source })?;
    }
    Ok(INSTALLED.get_or_init(|| stop).clone())
}

/// Makes a write beyond the limit of file sizes (`ulimit -f`) fail with an error, where the signal would end the process.
pub fn report_large_files() -> Result<()> {
    // A handler of any kind suffices; what it sets is not read.
    flag::register(SIGXFSZ, Arc::default()).map_err(|source| Error::Signals { source })?;
    Ok(())
}

/// Calls `clean` before SIGINT, SIGTERM or SIGHUP ends the process. For commands that do not train and write files.
///
/// # Errors
/// Where the system refuses handlers or a thread.
pub fn before_the_end(clean: fn()) -> Result<()> {
    before(&[SIGINT, SIGTERM], clean)
}

/// As [`before_the_end`] for a command to which SIGINT means something else.
///
/// # Errors
/// As there.
pub fn before_termination(clean: fn()) -> Result<()> {
    before(&[SIGTERM], clean)
}

fn before(signals: &[i32], clean: fn()) -> Result<()> {
    let hangs_up = (!is_ignored(SIGHUP)).then_some(&SIGHUP);
    let mut signals =
        Signals::new(signals.iter().chain(hangs_up)).map_err(|source| Error::Signals { source })?;
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            clean();
            // It fails for unknown signals only.
            let _ = low_level::emulate_default_handler(signal);
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(wait);
    thread.map(drop).map_err(|source| Error::Signals { source })
}

/// A flag that every SIGINT sets, in place of ending the process. For commands that do not train.
pub fn on_interrupt() -> Result<Arc<AtomicBool>> {
    let flag = Arc::default();
    flag::register(SIGINT, Arc::clone(&flag)).map_err(|source| Error::Signals { source })?;
    Ok(flag)
}

/// Set when SIGTSTP asks the process to pause, as ctrl-Z on a terminal does.
#[derive(Clone, Debug)]
pub struct SuspendFlag {
    flag: Arc<AtomicBool>,
}

impl SuspendFlag {
    /// Whether a pause was requested since the last call.
    pub fn take(&self) -> bool {
        self.flag.swap(false, Ordering::SeqCst)
    }
}

/// Replaces the pause of SIGTSTP by a flag, so that the terminal can be restored first. Who has the flag calls [`suspend`].
pub fn on_suspend() -> Result<SuspendFlag> {
    static INSTALLED: OnceLock<SuspendFlag> = OnceLock::new();
    if let Some(suspend) = INSTALLED.get() {
        return Ok(suspend.clone());
    }
    let suspend = SuspendFlag { flag: Arc::default() };
    if !is_ignored(SIGTSTP) {
        flag::register(SIGTSTP, Arc::clone(&suspend.flag))
            .map_err(|source| Error::Signals { source })?;
    }
    Ok(INSTALLED.get_or_init(|| suspend).clone())
}

/// Pauses the process as ctrl-Z does, and returns when it continues.
pub fn suspend() {
    // It fails for unknown signals only.
    let _ = low_level::emulate_default_handler(SIGTSTP);
}

/// Whether a signal is ignored; false where the system does not say.
fn is_ignored(signal: i32) -> bool {
    let status = fsio::read_text_capped("/proc/self/status", 64 << 10).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (mask >> (signal - 1)) & 1 == 1
}
