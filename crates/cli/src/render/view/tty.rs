//! The terminal: what it can show, its size, raw mode, keys. Raw mode ends with the view, and when the program panics.

use std::io::IsTerminal as _;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use watch::Look;

use super::super::stderr;
use super::keys::{Key, parse};
use crate::args::LogStyle;

/// Switches to the alternate screen without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
/// Restores cursor and screen. A live line of before is removed.
const LEAVE: &str = "\x1b[0m\x1b[?25h\x1b[?1049l\r\x1b[2K";

/// The terminal's settings before raw mode, while it lasts.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Input from the terminal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Keys(Vec<Key>),
    /// The terminal is closed.
    Closed,
}

/// Whether stderr is a terminal that moves its cursor.
pub(crate) fn is_capable() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether a run fills the terminal: asked for, or by default on one of 80 columns and 24 rows or more.
pub(crate) fn is_full(log: LogStyle) -> bool {
    let is_large = || size().is_some_and(|(columns, rows)| columns >= 80 && rows >= 24);
    match log {
        LogStyle::Full => is_capable(),
        LogStyle::Auto => is_capable() && is_large(),
        LogStyle::Line | LogStyle::Plain | LogStyle::Json => false,
    }
}

/// Columns and rows of the terminal; `None` if it does not say.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = terminal_size::terminal_size_of(std::io::stderr())?;
    Some((size.0.0, size.1.0)).filter(|(columns, rows)| *columns > 0 && *rows > 0)
}

/// Abilities of the terminal, by its environment (<https://no-color.org>).
pub(crate) fn look() -> Look {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let term = variable("TERM").unwrap_or_default();
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable);
    Look {
        colour: variable("NO_COLOR").is_none() && term != "dumb",
        // The console of Linux has no Braille.
        unicode: term != "linux" && locale.is_none_or(|locale| is_utf8(&locale)),
    }
}

fn is_utf8(locale: &str) -> bool {
    let locale = locale.to_ascii_lowercase();
    match locale.split_once('.') {
        Some((_, charset)) => charset.starts_with("utf-8") || charset.starts_with("utf8"),
        None => locale != "c" && locale != "posix",
    }
}

/// Whether the terminal wraps its lines again when it becomes narrower, as most do. Those that do not cut them.
pub(crate) fn rewraps() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    let is_screen = is_set("STY") && !is_set("TMUX");
    !is_set("XTERM_VERSION") && !is_screen && std::env::var_os("TERM").is_none_or(|t| t != "linux")
}

/// The terminal from which keys are read.
fn input() -> BorrowedFd<'static> {
    let stdin = rustix::stdio::stdin();
    if std::io::stdin().is_terminal() { stdin } else { rustix::stdio::stderr() }
}

/// Whether this process is in the foreground of its terminal. In the background, reading keys or setting modes stops it.
pub(crate) fn is_foreground() -> bool {
    tcgetpgrp(input()).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Makes a panic restore the terminal before its message is printed. Call it before the work that may panic, which may have
/// a hook of its own.
pub(crate) fn restore_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if leave(true) {
                stderr::flush();
            }
            previous(info);
        }));
    });
}

/// Starts raw mode on the alternate screen. Other output to stderr waits. Returns whether the terminal permits it.
pub(crate) fn enter() -> bool {
    let Ok(before) = tcgetattr(input()) else { return false };
    let mut raw = before.clone();
    raw.make_raw();
    let mut saved = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    if tcsetattr(input(), OptionalActions::Now, &raw).is_err() {
        return false;
    }
    *saved = Some(before);
    stderr::hold(ENTER);
    true
}

/// Ends raw mode and the alternate screen, and prints what has waited. Does nothing without an [`enter`] before. Only a
/// process in the foreground restores modes; a shell does that for the others.
pub(crate) fn leave(restores_modes: bool) -> bool {
    let saved = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(before) = saved else { return false };
    if restores_modes {
        let _ = tcsetattr(input(), OptionalActions::Now, &before);
    }
    stderr::release(LEAVE);
    true
}

/// Waits for keys.
pub(crate) fn read_keys(patience: Duration) -> Input {
    let mut fds = [PollFd::from_borrowed_fd(input(), PollFlags::IN)];
    let timeout =
        Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
    match poll(&mut fds, Some(&timeout)) {
        Ok(0) | Err(Errno::INTR | Errno::AGAIN) => return Input::Keys(Vec::new()),
        Ok(_) => {}
        Err(_) => return Input::Closed,
    }
    let mut bytes = [0; 256];
    match rustix::io::read(input(), &mut bytes) {
        Err(Errno::INTR | Errno::AGAIN) => Input::Keys(Vec::new()),
        Ok(0) | Err(_) => Input::Closed,
        Ok(n) => Input::Keys(parse(bytes.get(..n).unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::is_utf8;

    #[test]
    fn locales() {
        for locale in ["en_US.UTF-8", "C.utf8", "de_DE", "C.UTF-8", "en_US.UTF-8@euro"] {
            assert!(is_utf8(locale), "{locale}");
        }
        for locale in ["C", "POSIX", "de_DE.ISO-8859-1", "ja_JP.eucJP"] {
            assert!(!is_utf8(locale), "{locale}");
        }
    }
}
