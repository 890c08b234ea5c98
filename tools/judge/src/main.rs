//! `cargo run -p judge -- RECIPE --rows FILE COMPLETIONS…`: one JSON line for the judge, one per file of completions.
//!
//! The labels come from the recipe's own `pairs`, so judge and reward model agree on the meaning of "better".

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use data::SourceSpec;
use judge::{Error, Features, Judge, Metrics, Result, completions, unseen};
use serde_json::{Value, json};

/// Judge completions with a classifier that never saw the recipe's pairs.
#[derive(Debug, Parser)]
struct Args {
    /// The recipe whose `pairs` define which texts are better.
    recipe: PathBuf,
    /// The directory of the recipe's `data:` paths.
    #[arg(long, default_value = "data")]
    data_dir: PathBuf,
    /// Labelled rows with the same columns as the recipe's data. Texts that occur in the recipe's pairs are skipped.
    /// Default: the rows of the recipe's own file after its `limit`.
    #[arg(long)]
    rows: Option<PathBuf>,
    /// Use character n-grams instead of words.
    #[arg(long)]
    letters: bool,
    /// Files written by `temper generate`.
    completions: Vec<PathBuf>,
}

fn main() -> ExitCode {
    // A closed pipe is not an error: the metrics have been computed.
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
        let metrics = Metrics::of(&completions(path)?, &judge);
        lines.push(json!({ "completions": path, "metrics": metrics }));
    }
    Ok(lines)
}
