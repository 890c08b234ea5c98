//! What a command can fail with: an exit code, one message, one hint. The only place that prints errors.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

/// The recipe or the command line is wrong, or a file it names is.
pub(crate) const WRONG_INPUT: u8 = 2;
/// The run itself failed.
pub(crate) const RUN_FAILED: u8 = 1;
/// Stopped by a signal with a checkpoint saved.
pub(crate) const STOPPED: u8 = 75;

/// A failure ready to be shown.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// The command line or an input is wrong: exit code 2.
    pub(crate) fn input(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: WRONG_INPUT, message: message.into(), hint: Some(hint.into()) }
    }

    /// The same failure, but of the run rather than of its input: exit code 1.
    pub(crate) fn during_run(mut self) -> Self {
        self.code = RUN_FAILED;
        self
    }

    /// A signal stopped the run after a checkpoint was saved: exit code 75, nothing to print.
    pub(crate) fn stopped() -> Self {
        Self { code: STOPPED, message: String::new(), hint: None }
    }

    /// Nothing to tell: whoever read our output has gone away.
    pub(crate) fn quiet() -> Self {
        Self { code: 0, message: String::new(), hint: None }
    }

    /// Prints the message and the hint to stderr and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            // Nobody is left to tell where even stderr is closed.
            let _ = std::io::stderr().write_all(self.text().as_bytes());
        }
        ExitCode::from(self.code)
    }

    /// The message and the hint, as they are printed.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.message.trim_end());
        if let Some(hint) = &self.hint {
            text += &format!("  hint: {hint}\n");
        }
        text
    }

    fn from_error(error: &dyn Error, hint: Option<String>) -> Self {
        Self { code: WRONG_INPUT, message: error.to_string(), hint }
    }
}

/// Every crate's error has a message and a hint; this is where they meet the exit codes.
macro_rules! from_errors {
    ($($error:ty),+ $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::from_error(&error, error.hint())
            }
        }
    )+};
}

from_errors!(
    fsio::Error,
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
    evaluate::Error,
    export::Error,
    dpo::Error,
    ppo::Error,
);
