//! Failures of commands: exit code, message and hint. Errors are printed only here.

use std::borrow::Cow;
use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use crate::render::printable::printable;
use crate::render::table;

/// The recipe, the command line or an input file is wrong.
pub(crate) const WRONG_INPUT: u8 = 2;
/// The run failed.
pub(crate) const RUN_FAILED: u8 = 1;
/// Stopped by a signal with a checkpoint saved.
pub(crate) const STOPPED: u8 = 75;

/// Longest line of a message, in bytes.
const LINE_BYTES: usize = 4096;

/// Error codes of Linux for which the standard library has no stable kind.
mod libc_codes {
    pub(super) const EINTR: i32 = 4;
    pub(super) const EIO: i32 = 5;
    pub(super) const ENOMEM: i32 = 12;
    pub(super) const ENFILE: i32 = 23;
    pub(super) const EMFILE: i32 = 24;
    pub(super) const ELOOP: i32 = 40;
}

/// A failure of a command.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
    /// Whether the input is at fault wherever the failure is found.
    is_input: bool,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A wrong command line or input: exit code 2.
    pub(crate) fn input(message: impl Into<String>, hint: impl Into<String>) -> Self {
        let (message, hint) = (message.into(), Some(hint.into()));
        Self { code: WRONG_INPUT, message, hint, is_input: false }
    }

    /// The same failure as one of the run: exit code 1. An input that is damaged, changed or of another version stays one.
    pub(crate) fn during_run(mut self) -> Self {
        if !self.is_input {
            self.code = RUN_FAILED;
        }
        self
    }

    /// The same failure as one of the input: exit code 2 in a run, too.
    pub(crate) fn of_input(mut self, is_input: bool) -> Self {
        self.is_input |= is_input;
        self
    }

    /// The same failure with the name of its run before the message.
    pub(crate) fn of(mut self, run: &str) -> Self {
        if !self.message.is_empty() {
            self.message = format!("{run}: {}", self.message);
        }
        self
    }

    /// A run stopped by a signal, with a checkpoint saved: exit code 75, without a message.
    pub(crate) fn stopped() -> Self {
        Self { code: STOPPED, message: String::new(), hint: None, is_input: false }
    }

    /// A comparison that found a difference, which is printed: exit code 1, without a message.
    pub(crate) fn differs() -> Self {
        Self { code: RUN_FAILED, message: String::new(), hint: None, is_input: false }
    }

    /// A closed stdout: exit code 0, without a message.
    pub(crate) fn quiet() -> Self {
        Self { code: 0, message: String::new(), hint: None, is_input: false }
    }

    /// Whether a signal stopped the run, with a checkpoint saved.
    pub(crate) fn is_stop(&self) -> bool {
        self.code == STOPPED
    }

    /// The message without the hint.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Whether it has no message, as where stdout is closed.
    pub(crate) fn is_silent(&self) -> bool {
        self.message.is_empty()
    }

    /// Prints message and hint to stderr and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            // A closed stderr is ignored.
            let _ = std::io::stderr().write_all(self.text().as_bytes());
        }
        ExitCode::from(self.code)
    }

    /// Whether the hint names a key of the recipe.
    pub(crate) fn advises(&self, key: &str) -> bool {
        self.hint.as_ref().is_some_and(|hint| hint.contains(&format!("`{key}")))
    }

    /// Message and hint as printed.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.message.trim_end());
        if let Some(hint) = &self.hint {
            text += &format!("  hint: {hint}\n");
        }
        printable(&with_short_lines(&text)).into_owned()
    }

    /// A failure of the machine, such as one to write, has the exit code of a failed run, wherever it happens.
    pub(crate) fn from_error(error: &(dyn Error + 'static), hint: Option<String>) -> Self {
        let code = if is_of_machine(error) { RUN_FAILED } else { WRONG_INPUT };
        let of_files = |cause: &(dyn Error + 'static)| {
            let read =
                cause.downcast_ref::<fsio::IoFailure>().filter(|failure| !failure.is_write());
            cause.is::<fsio::Damage>()
                || cause.is::<fsio::OtherFormat>()
                || matches!(cause.downcast_ref(), Some(fsio::Error::NotAFile { .. }))
                || read.is_some_and(|failure| is_of_another_kind(failure))
        };
        let is_input = causes(error).into_iter().any(of_files);
        let hint = hint.or_else(|| lacks_files(error).then(|| fsio::OPEN_FILES_HINT.to_owned()));
        Self { code, message: error.to_string(), hint, is_input }
    }
}

/// The text with the middle of each very long line left out: a library's message may quote a value of a foreign file that has
/// millions of characters.
fn with_short_lines(text: &str) -> Cow<'_, str> {
    if text.lines().all(|line| line.len() <= LINE_BYTES) {
        return Cow::Borrowed(text);
    }
    let shortened = text.lines().map(|line| {
        if line.len() <= LINE_BYTES {
            return format!("{line}\n");
        }
        let head = line.split_at(line.floor_char_boundary(LINE_BYTES / 2)).0;
        let rest = line.split_at(line.ceil_char_boundary(line.len() - LINE_BYTES / 4)).1;
        let n_left_out = table::thousands((line.len() - head.len() - rest.len()) as u64);
        format!("{head} … [{n_left_out} bytes left out] … {rest}\n")
    });
    Cow::Owned(shortened.collect())
}

/// An error and its causes.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let (mut all, mut next) = (Vec::new(), Some(error));
    while let Some(error) = next {
        all.push(error);
        next = error.source();
    }
    all
}

/// Whether an operation failed that would have changed the file system, or the machine starts no thread. A path of which no
/// file can be made is not the machine's fault.
fn is_of_machine(error: &(dyn Error + 'static)) -> bool {
    use std::io::ErrorKind;
    const NO_PATH: [ErrorKind; 3] =
        [ErrorKind::NotADirectory, ErrorKind::NotFound, ErrorKind::InvalidFilename];
    causes(error).into_iter().any(|cause| {
        if let Some(failure) = cause.downcast_ref::<fsio::IoFailure>() {
            if failure.is_write() {
                return !NO_PATH.contains(&failure.kind());
            }
            return failure.raw_os_error().is_some() && !is_of_path(failure);
        }
        if cause.is::<fsio::NoThread>() {
            return true;
        }
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| {
            // Writers of files have an error with the path inside.
            let is_own = matches!(error.get_ref(), Some(inner) if inner.is::<fsio::Error>());
            is_own
                || is_lack(error.raw_os_error())
                || matches!(
                    error.kind(),
                    ErrorKind::StorageFull
                        | ErrorKind::QuotaExceeded
                        | ErrorKind::FileTooLarge
                        | ErrorKind::ReadOnlyFilesystem
                )
        })
    })
}

/// Whether the process has no file descriptors left.
fn lacks_files(error: &(dyn Error + 'static)) -> bool {
    let of_library = |cause: &&(dyn Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error)
    };
    causes(error).iter().any(|cause| of_library(cause) == Some(libc_codes::EMFILE))
}

/// Errors of reading that say what the path is: no file, one of another kind or of somebody else. All others say that the system
/// fails.
fn is_of_path(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidFilename, InvalidInput, NotFound, PermissionDenied};
    let kinds = [NotFound, PermissionDenied, InvalidInput, InvalidFilename];
    is_of_another_kind(error) || kinds.contains(&error.kind())
}

/// A directory in the place of a file, a file or a pipe in that of a directory, a loop of links.
fn is_of_another_kind(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{IsADirectory, NotADirectory};
    let is_of_links = error.raw_os_error() == Some(libc_codes::ELOOP);
    is_of_links || matches!(error.kind(), IsADirectory | NotADirectory)
}

/// No file descriptors, no memory, a failing disk, a call that a signal interrupted.
fn is_lack(code: Option<i32>) -> bool {
    use libc_codes::{EINTR, EIO, EMFILE, ENFILE, ENOMEM};
    matches!(code, Some(EINTR | EIO | ENOMEM | ENFILE | EMFILE))
}

impl From<hub::Error> for Failure {
    /// A failure of the network, the server or the disk has the exit code of a failed run.
    fn from(error: hub::Error) -> Self {
        let failure = Self::from_error(&error, error.hint());
        if error.is_input() { failure } else { failure.during_run() }
    }
}

impl From<report::NotARun> for Failure {
    fn from(error: report::NotARun) -> Self {
        let hint = "`temper runs` lists all runs; a run is given by its name or by its directory";
        Self::from_error(&error, Some(hint.to_owned()))
    }
}

impl From<kernels::Error> for Failure {
    /// A machine that starts no threads has the exit code of a failed run.
    fn from(error: kernels::Error) -> Self {
        let failure = Self::from_error(&error, error.hint());
        if matches!(error, kernels::Error::Threads { .. }) { failure.during_run() } else { failure }
    }
}

impl From<serve::Error> for Failure {
    fn from(error: serve::Error) -> Self {
        let failure = Self::from_error(&error, error.hint());
        if error.is_failure() { failure.during_run() } else { failure }
    }
}

impl From<train::Error> for Failure {
    fn from(error: train::Error) -> Self {
        Self::from_error(&error, error.hint()).of_input(error.is_wrong_input())
    }
}

impl From<ppo::Error> for Failure {
    fn from(error: ppo::Error) -> Self {
        Self::from_error(&error, error.hint()).of_input(error.is_wrong_input())
    }
}

impl From<grpo::Error> for Failure {
    fn from(error: grpo::Error) -> Self {
        Self::from_error(&error, error.hint()).of_input(error.is_wrong_input())
    }
}

impl From<evaluate::Error> for Failure {
    fn from(error: evaluate::Error) -> Self {
        let is_input = matches!(&error, evaluate::Error::Train(error) if error.is_wrong_input());
        let failure = Self::from_error(&error, error.hint()).of_input(is_input);
        // Files that were just written and are wrong are no fault of the input.
        if matches!(error, evaluate::Error::NoProof { .. }) {
            failure.during_run()
        } else {
            failure
        }
    }
}

/// Converts errors of other crates, which have a message and a hint.
macro_rules! from_errors {
    ($($error:ty),+ $(,)?) => {$(
        impl From<$error> for $crate::failure::Failure {
            fn from(error: $error) -> Self {
                Self::from_error(&error, error.hint())
            }
        }
    )+};
}

from_errors!(
    fsio::Error,
    hub_local::Error,
    bench::Error,
    recipe::Error,
    arch::Error,
    arch::AdapterError,
    lora::Error,
    tokenizer::Error,
    data::Error,
    model::Error,
    plan::Error,
    generate::Error,
    export::Error,
    tasks::Error,
);

#[cfg(test)]
mod tests {
    use super::{Failure, LINE_BYTES, RUN_FAILED, WRONG_INPUT};

    /// Reading: what the path is at fault for is a wrong input, and everything else a failure of the machine.
    #[test]
    fn exit_codes_of_reads() {
        let code = |errno: i32| {
            let error = data::Error::Io {
                path: "a".into(),
                source: std::io::Error::from_raw_os_error(errno),
            };
            let of_data = Failure::from_error(&error, None).code;
            let error = fsio::Error::of_reading("a", std::io::Error::from_raw_os_error(errno));
            (of_data, Failure::from_error(&error, None).code)
        };
        // EINTR, EIO, ENOMEM, ENFILE, EMFILE, ENOSPC
        for errno in [4, 5, 12, 23, 24, 28] {
            assert_eq!(code(errno), (RUN_FAILED, RUN_FAILED), "{errno}");
        }
        // EAGAIN, ESTALE
        for errno in [11, 116] {
            assert_eq!(code(errno).1, RUN_FAILED, "{errno}");
        }
        // ENOENT, EACCES, ENOTDIR, EISDIR, EINVAL, ENAMETOOLONG, ELOOP
        for errno in [2, 13, 20, 21, 22, 36, 40] {
            assert_eq!(code(errno), (WRONG_INPUT, WRONG_INPUT), "{errno}");
        }
    }

    #[test]
    fn long_lines_of_messages_are_shortened() {
        let message = format!("{}\n{}: not a number\nlast", "short", "é".repeat(1 << 20));
        let text = Failure::input(message, "x".repeat(LINE_BYTES - 8)).text();
        assert!(text.len() < 2 * LINE_BYTES, "{}", text.len());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| line.len() <= LINE_BYTES));
        assert!(lines[1].contains("bytes left out") && lines[1].ends_with("not a number"));
        assert_eq!((lines[0], lines[2]), ("error: short", "last"));
        assert!(!lines[3].contains("left out"));
    }
}
