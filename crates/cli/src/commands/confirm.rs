//! The question before something is removed.

use std::io::{self, BufRead as _, IsTerminal as _};

use crate::failure::{Failure, Result};
use crate::render::progress::write_stderr;

/// Whether the user agrees. `yes` is the answer of the command line.
///
/// Errors: there is no terminal to ask on.
pub(super) fn confirmed(question: &str, yes: bool) -> Result<bool> {
    if yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::input(
            "nothing was removed: there is no terminal to ask on",
            "add --yes to remove without a question",
        ));
    }
    write_stderr(&format!("{question} [y/N] "));
    crate::render::stderr::flush();
    let mut answer = String::new();
    // An input that cannot be read is no agreement.
    let _ = io::stdin().lock().read_line(&mut answer);
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
