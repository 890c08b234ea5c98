//! Arguments of the commands for shells and for `man`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `temper completions`
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Shell that reads the script
    #[arg(value_enum)]
    pub(crate) shell: ShellName,
}

/// Shells with completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShellName {
    /// Bash, with the package bash-completion
    Bash,
    /// Zsh; a file `_temper` in a directory of `fpath`
    Zsh,
    /// Fish; a file `temper.fish` in `~/.config/fish/completions`
    Fish,
}

/// `temper man`
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Directory of the pages; it is created
    pub(crate) dir: PathBuf,
}
