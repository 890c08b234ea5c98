//! `cargo run -p kind-data [-- DIR]`: writes the generated files beside the patterns.
//!
//! There are no options: the output depends on the two source files alone.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kind_data::{OutputFile, Result, Source, outputs};

/// Default directory of the patterns.
const DEFAULT_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../datasets/kind");

fn main() -> ExitCode {
    let dir = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(DEFAULT_DIR), PathBuf::from);
    // A closed pipe is not an error: the files have been written.
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
