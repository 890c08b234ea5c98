//! `cargo run -p kind-data [-- DIR]`: writes the filled files beside the patterns.
//!
//! It deliberately takes no options: what it writes depends on the two source files alone.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kind_data::{OutputFile, Result, Source, outputs};

/// Where the patterns lie when no folder is named.
const DEFAULT_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../datasets/kind");

fn main() -> ExitCode {
    let dir = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(DEFAULT_DIR), PathBuf::from);
    // A reader that went away is no reason to fail: the files are written.
    match write_outputs(&dir) {
        Ok(files) => {
            for file in files {
                let _ = writeln!(std::io::stdout(), "{:6} rows  {}", file.n_rows, file.name);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            if let Some(hint) = error.hint() {
                let _ = writeln!(std::io::stderr(), "  hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

fn write_outputs(dir: &Path) -> Result<Vec<OutputFile>> {
    let files = outputs(&Source::read(dir)?)?;
    for file in &files {
        fsio::write_atomic(dir.join(file.name), file.bytes()?)?;
    }
    Ok(files)
}
