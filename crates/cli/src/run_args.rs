//! Arguments of the commands on several runs, and on runs that exist.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `temper sweep`
#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    /// Recipe, a TOML file
    pub(crate) recipe: PathBuf,
    /// Values of a key, as in `--set sft.optimizer.lr=1e-4,3e-4`; can be repeated, and every combination is a run. One value is
    /// set in all runs. Commas in brackets and quotes do not separate values
    #[arg(long = "set", value_name = "KEY=A,B,C", value_parser = key_value, required = true)]
    pub(crate) set: Vec<(String, String)>,
    /// Print the runs with their time and memory, and train none
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Skip the probe that estimates the running time
    #[arg(long)]
    pub(crate) no_probe: bool,
    /// Start of the runs' names [default: the recipe's]
    #[arg(long, value_name = "NAME", value_parser = run_name)]
    pub(crate) name: Option<String>,
    /// Only this stage of the recipe
    #[arg(long, value_name = "STAGE")]
    pub(crate) stage: Option<String>,
    /// Use only the first N rows of each source
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Directory of `data:` paths [default: TEMPER_DATA, or the recipe's `data_dir`, or data/]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Allow rewards of the recipe to start programs, which run with your rights
    #[arg(long)]
    pub(crate) allow_commands: bool,
    /// Start although a plan needs more memory or disk space than there is
    #[arg(long)]
    pub(crate) force: bool,
}

/// `temper runs`
#[derive(Debug, Args)]
#[command(after_help = "Example: temper runs show demo")]
pub(crate) struct RunsArgs {
    /// Directory of runs
    #[arg(long, default_value = "runs", global = true)]
    pub(crate) dir: PathBuf,
    /// Print one JSON object per stage instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Action [default: list all runs]
    #[command(subcommand)]
    pub(crate) command: Option<RunsCommand>,
}

/// `temper runs …`
#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// Draw the curves of a run in the terminal
    Show(ShowArgs),
    /// Say what differs between two runs: recipe, data, weights, versions, and the step at which their curves part
    Diff(DiffArgs),
    /// Remove a run, or all of it but its results
    Rm(RemoveArgs),
    /// Repeat a run from its directory alone, and say whether the bits agree
    Reproduce(ReproduceArgs),
}

/// `temper runs show`
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Name of the run, or its directory
    pub(crate) run: PathBuf,
    /// Only this stage
    #[arg(long, value_name = "STAGE")]
    pub(crate) stage: Option<String>,
}

/// `temper runs diff`
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Name of a run, or its directory
    pub(crate) a: PathBuf,
    /// The other one
    pub(crate) b: PathBuf,
}

/// `temper runs rm`
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Name of the run, or its directory
    pub(crate) run: PathBuf,
    /// Keep recipe, logs and the finished models; remove checkpoints and precomputed log-probabilities of finished stages
    #[arg(long)]
    pub(crate) keep_model: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// `temper runs reproduce`
#[derive(Debug, Args)]
pub(crate) struct ReproduceArgs {
    /// Name of the run, or its directory
    pub(crate) run: PathBuf,
    /// Name of the new run [default: the run's, with `-again`]
    #[arg(long, value_name = "NAME", value_parser = run_name)]
    pub(crate) name: Option<String>,
    /// Directory of `data:` paths, if it has moved
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Allow rewards of the recipe to start programs, which run with your rights
    #[arg(long)]
    pub(crate) allow_commands: bool,
}

/// `temper report`
#[derive(Debug, Args)]
#[command(after_help = "Example: temper report demo")]
pub(crate) struct ReportArgs {
    /// Name of the run, or its directory
    pub(crate) run: PathBuf,
    /// File to write, or - for stdout [default: report.html in the run's directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// `temper cache`
#[derive(Debug, Args)]
#[command(after_help = "Example: temper cache clear --yes")]
pub(crate) struct CacheArgs {
    /// Directory of runs, whose `.cache` it is
    #[arg(long, default_value = "runs", global = true)]
    pub(crate) dir: PathBuf,
    /// Action [default: show the cache]
    #[command(subcommand)]
    pub(crate) command: Option<CacheCommand>,
}

/// `temper cache …`
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Remove the cache; the next run prepares its data again
    Clear {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// The name of a run, by the rule of the recipe's `name`.
pub(crate) fn run_name(text: &str) -> Result<String, String> {
    recipe::run_name(text).map(|()| text.to_owned())
}

/// A key and its value, as `--set` takes them.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("expected KEY=VALUE, as in pretrain.max_steps=60".to_owned()),
    }
}
