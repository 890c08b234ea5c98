//! Failures of commands: exit code, message and hint. Errors are printed only here.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use crate::render::printable::printable;

/// The recipe, the command line or an input file is wrong.
pub(crate) const WRONG_INPUT: u8 = 2;
/// The run failed.
pub(crate) const RUN_FAILED: u8 = 1;
/// Stopped by a signal with a checkpoint saved.
pub(crate) const STOPPED: u8 = 75;

/// A failure of a command.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A wrong command line or input: exit code 2.
    pub(crate) fn input(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: WRONG_INPUT, message: message.into(), hint: Some(hint.into()) }
    }

    /// The same failure as one of the run: exit code 1.
    pub(crate) fn during_run(mut self) -> Self {
        self.code = RUN_FAILED;
        self
    }

    /// A run stopped by a signal, with a checkpoint saved: exit code 75, without a message.
    pub(crate) fn stopped() -> Self {
        Self { code: STOPPED, message: String::new(), hint: None }
    }

    /// A closed stdout: exit code 0, without a message.
    pub(crate) fn quiet() -> Self {
        Self { code: 0, message: String::new(), hint: None }
    }

    /// Prints message and hint to stderr and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            // A closed stderr is ignored.
            let _ = std::io::stderr().write_all(self.text().as_bytes());
        }
        ExitCode::from(self.code)
    }

    /// Message and hint as printed.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.message.trim_end());
        if let Some(hint) = &self.hint {
            text += &format!("  hint: {hint}\n");
        }
        printable(&text).into_owned()
    }

    pub(crate) fn from_error(error: &dyn Error, hint: Option<String>) -> Self {
        Self { code: WRONG_INPUT, message: error.to_string(), hint }
    }
}

impl From<hub::Error> for Failure {
    /// A failure of the network, the server or the disk has the exit code of a failed run.
    fn from(error: hub::Error) -> Self {
        let failure = Self::from_error(&error, error.hint());
        if error.is_input() { failure } else { failure.during_run() }
    }
}

impl From<evaluate::Error> for Failure {
    fn from(error: evaluate::Error) -> Self {
        let failure = Self::from_error(&error, error.hint());
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

pub(crate) use from_errors;

from_errors!(
    fsio::Error,
    hub_local::Error,
    bench::Error,
    recipe::Error,
    arch::Error,
    arch::AdapterError,
    lora::Error,
    kernels::Error,
    tokenizer::Error,
    data::Error,
    model::Error,
    plan::Error,
    train::Error,
    generate::Error,
    export::Error,
);
