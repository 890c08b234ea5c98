//! `cargo run -p judge -- RECIPE --rows FILE COMPLETIONS…`: one JSON line for the judge, one for each file of completions.
//!
//! It deliberately takes the labels from the recipe's own `pairs`, so that judge and reward model mean the same by "better".

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use data::SourceSpec;
use judge::{Error, Features, Figures, Judge, Result, completions, unseen};
use serde_json::{Value, json};

/// Judges completions by a classifier that never saw the recipe's pairs.
#[derive(Debug, Parser)]
struct Args {
    /// The recipe whose `pairs` say which texts are better.
    recipe: PathBuf,
    /// The data directory of its `data:` paths.
    #[arg(long, default_value = "data")]
    data_dir: PathBuf,
    /// Labelled rows with the same columns; texts that the recipe's pairs have are left out. Left out, the recipe's own
    /// file, of which `limit` must have left something.
    #[arg(long)]
    rows: Option<PathBuf>,
    /// Judge by runs of letters instead of words.
    #[arg(long)]
    letters: bool,
    /// Files that `temper generate` wrote.
    completions: Vec<PathBuf>,
}

fn main() -> ExitCode {
    // A reader that went away is no reason to fail: the figures were there.
    match judged(&Args::parse()) {
        Ok(lines) => {
            for line in lines {
                let _ = writeln!(std::io::stdout(), "{line}");
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

fn judged(args: &Args) -> Result<Vec<Value>> {
    let loaded = recipe::load(&args.recipe, &[])?;
    let sources = loaded.recipe.sources();
    let source = sources.iter().find(|(_, source)| source.pairs.is_some());
    let (_, source) = source.ok_or_else(|| Error::NoPairs { path: args.recipe.clone() })?;
    let seen = SourceSpec::resolve(source, loaded.dir(), &args.data_dir, None)?;
    let mut rows = SourceSpec { limit: None, ..seen.clone() };
    if let Some(file) = &args.rows {
        let SourceSpec { path, files, .. } = SourceSpec::file(file);
        rows = SourceSpec { path, files, format: None, ..rows };
    }
    let features = if args.letters { Features::Letters } else { Features::Words };
    let judge = Judge::new(features, &unseen(&rows, &seen)?)?;
    let mut lines = vec![json!({ "judge": judge.measured })];
    for path in &args.completions {
        let figures = Figures::of(&completions(path)?, &judge);
        lines.push(json!({ "completions": path, "figures": figures }));
    }
    Ok(lines)
}
