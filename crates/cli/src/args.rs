//! Command-line arguments, as clap types. The commands themselves are in `commands`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::evaluation_args::count;
pub(crate) use crate::evaluation_args::{CompareArgs, ContaminationArgs, EvalArgs, ScoreArgs};
pub(crate) use crate::run_args::{
    CacheArgs, CacheCommand, DiffArgs, RemoveArgs, ReportArgs, ReproduceArgs, RunsArgs,
    RunsCommand, ShowArgs, SweepArgs, key_value, run_name,
};
use crate::serve_args::ServeArgs;
pub(crate) use crate::shell_args::{CompletionsArgs, ManArgs, ShellName};
pub(crate) use crate::tokenizer_args::{
    DecodeArgs, EncodeArgs, RenderArgs, TokenizerCommand, TokenizerKind, TrainTokenizerArgs,
};

/// Trains and aligns language models from TOML recipes.
#[derive(Debug, Parser)]
#[command(name = "temper", version, about, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 finished, 1 the run failed, 2 the recipe or the command line \
                        is wrong, 75 stopped by a signal with a checkpoint saved."
)]
pub(crate) struct Cli {
    /// Command to run.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Format of progress on stderr
    #[arg(long, global = true, value_enum, default_value_t = LogStyle::Auto)]
    pub(crate) log: LogStyle,
    /// Number of CPU threads [default: the recipe's `threads`, or one per core]
    #[arg(long, global = true, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

/// Format of progress on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogStyle {
    /// The whole terminal where it has 80x24 characters, a live line on a smaller one, plain lines
    /// otherwise
    Auto,
    /// The whole terminal, with curves and samples; `q` closes the view
    Full,
    /// One live line
    Line,
    /// One line per logged step
    Plain,
    /// One JSON object per line
    Json,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a first recipe for a model and a data file, with values chosen from both, and plan it
    Init(InitArgs),
    /// Check a recipe and print its steps, memory and time, without training
    Plan(PlanArgs),
    /// Run the stages of a recipe; skips finished stages and resumes interrupted ones
    Run(RunArgs),
    /// Resume an interrupted run
    Resume(ResumeArgs),
    /// Train a recipe with every combination of values, one run after the other, and compare the results
    Sweep(SweepArgs),
    /// Watch a run that another process trains: curves, samples, time left
    Watch(WatchArgs),
    /// Complete prompts; prints one JSON line per completion
    Generate(GenerateArgs),
    /// Chat with a model in the terminal
    Chat(ChatArgs),
    /// Serve models over HTTP, with OpenAI's interface and a page to chat
    Serve(ServeArgs),
    /// Evaluate a model on few-shot tasks, or measure loss, perplexity and bits per byte on a file
    Eval(EvalArgs),
    /// Count how often a model's answers are better than another's, by a reward model or a judge
    Compare(CompareArgs),
    /// Score texts or pairs with a reward model; prints one JSON line per row
    Score(ScoreArgs),
    /// Compare a model's numbers with reference vectors
    Verify(VerifyArgs),
    /// Export a model as a Hugging Face directory or as a GGUF file
    Export(ExportArgs),
    /// Average models, or add adapters on one base model
    Merge(MergeArgs),
    /// Time a standard workload on random weights; prints one JSON line
    Bench(BenchArgs),
    /// List the devices of this machine, and anything that they lack
    Devices,
    /// Test a device: compare it with the CPU, train every kind of stage, and time it
    Selftest(SelftestArgs),
    /// List runs with state, step, time left, last validation and size; show, compare, repeat and remove them
    Runs(RunsArgs),
    /// Write a page about a run: data, plan and outcome, curves, samples, hashes
    Report(ReportArgs),
    /// Show or remove the tokenized data and trained tokenizers that runs share
    Cache(CacheArgs),
    /// Download a model or a data set from the Hugging Face hub; no other command connects to it
    Get(GetArgs),
    /// Inspect training data or a data file
    #[command(subcommand)]
    Data(DataCommand),
    /// Encode and decode text, render conversations, train a tokenizer
    #[command(subcommand)]
    Tokenizer(TokenizerCommand),
    /// Print the script that completes temper's commands and options in a shell
    Completions(CompletionsArgs),
    /// Write pages for `man`, one for each command
    Man(ManArgs),
}

/// Arguments of every command that reads a recipe.
#[derive(Debug, Args)]
pub(crate) struct RecipeArgs {
    /// Recipe, a TOML file
    pub(crate) recipe: PathBuf,
    /// Directory of `data:` paths [default: TEMPER_DATA, or the recipe's `data_dir`, or data/]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Override a key of the recipe, as in `--set pretrain.max_steps=60`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Use only the first N rows of each source
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Name of the run [default: the recipe's]
    #[arg(long, value_name = "NAME", value_parser = run_name)]
    pub(crate) name: Option<String>,
    /// Only this stage of the recipe
    #[arg(long, value_name = "STAGE")]
    pub(crate) stage: Option<String>,
    /// Allow rewards of the recipe to start programs, which run with your rights
    #[arg(long)]
    pub(crate) allow_commands: bool,
}

/// `temper init`
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Stage of the recipe, or `chain`: stages that continue each other
    #[arg(value_enum)]
    pub(crate) kind: InitKind,
    /// Model to start from: Hugging Face directory, hf:OWNER/MODEL, GGUF file, or stage of a run
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,
    /// Data file, directory, pattern, or hf:datasets/OWNER/NAME
    #[arg(long, value_name = "FILE")]
    pub(crate) data: String,
    /// Pairs of answers for the second stage of `chain`, as --data
    #[arg(long, value_name = "FILE", required_if_eq("kind", "chain"))]
    pub(crate) pairs: Option<String>,
    /// Prompts of the PPO stage of `chain`, as --data [default: those of the chats]
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts: Option<String>,
    /// How `chain` learns from the pairs [default: ppo]
    #[arg(long, value_enum, value_name = "METHOD")]
    pub(crate) align: Option<Align>,
    /// Reward model of `ppo`: a reward stage of a run, or its directory
    #[arg(long, value_name = "MODEL", required_if_eq("kind", "ppo"))]
    pub(crate) reward: Option<String>,
    /// The recipe to write; an existing file is not replaced [default: KIND.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Skip the probe that estimates the running time
    #[arg(long)]
    pub(crate) no_probe: bool,
}

/// Stages of `temper init chain` after fine-tuning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Align {
    /// A reward model from the pairs, and PPO against it
    Ppo,
    /// Direct preference optimization on the pairs
    Dpo,
}

/// Recipes that `temper init` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InitKind {
    /// Continued pretraining on texts
    Pretrain,
    /// Supervised fine-tuning on chats
    Sft,
    /// Reward model from pairs of answers
    Reward,
    /// Direct preference optimization on pairs of answers
    Dpo,
    /// Kahneman–Tversky optimization on rated answers
    Kto,
    /// PPO on prompts, with a reward model
    Ppo,
    /// GRPO on prompts whose rows have the right answer
    Grpo,
    /// Fine-tuning on chats, a reward model from pairs, and PPO; or fine-tuning and DPO
    Chain,
}

/// `temper plan`
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Skip the probe that estimates the running time
    #[arg(long)]
    pub(crate) no_probe: bool,
    /// List every sample that is cut or dropped, with its location
    #[arg(long)]
    pub(crate) list_cut: bool,
    /// Accept a plan that needs more memory or disk space than there is
    #[arg(long)]
    pub(crate) force: bool,
}

/// `temper run`
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Start although the plan needs more memory or disk space than there is
    #[arg(long)]
    pub(crate) force: bool,
}

/// `temper resume`
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// Name of the run, or its directory
    pub(crate) run: PathBuf,
    /// Override a key that does not change the result, such as `log_every_steps`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Directory of `data:` paths, if it has moved
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Allow rewards of the recipe to start programs, which run with your rights
    #[arg(long)]
    pub(crate) allow_commands: bool,
    /// Start although the plan needs more memory or disk space than there is
    #[arg(long)]
    pub(crate) force: bool,
}

/// `temper watch`
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Name of the run, or its directory [default: the run in runs/ that was changed last]
    pub(crate) run: Option<PathBuf>,
}

/// `temper generate`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("templated").args(["template", "template_file"]))]
pub(crate) struct GenerateArgs {
    /// Stage of a run (runs/x/sft), checkpoint, Hugging Face directory, hf:OWNER/MODEL, or GGUF file
    pub(crate) model: PathBuf,
    /// Base model of MODEL, if MODEL is an adapter that does not record it
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// Type of weights and matrix products: f32, or bf16, which halves memory
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    pub(crate) dtype: String,
    /// Prompt, as raw text unless --chat is set; can be repeated
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Vec<String>,
    /// File of prompts: JSON lines with `prompt` or `messages`, or plain text lines
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub(crate) prompts: Option<PathBuf>,
    /// Prompt made of the columns of each row of --prompts, as in 'Question: {question}'; {{ and }} are braces. A row of the
    /// output is the input row with its completion
    #[arg(long, value_name = "TEXT", requires = "prompts")]
    pub(crate) template: Option<String>,
    /// File with the text of --template
    #[arg(long, value_name = "FILE", requires = "prompts", conflicts_with = "template")]
    pub(crate) template_file: Option<PathBuf>,
    /// Column of the completion in the output rows of --template [default: completion]
    #[arg(long = "as", value_name = "COLUMN", requires = "templated")]
    pub(crate) column: Option<String>,
    /// Write to a file instead of stdout. An interrupted command continues where it stopped when it is repeated
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) out: Option<PathBuf>,
    /// Reward model that scores the completions: a reward stage of a run, its checkpoint or directory
    #[arg(long, value_name = "MODEL")]
    pub(crate) reward: Option<PathBuf>,
    /// Write the best and the worst completion of each prompt as a row of `prompt`, `chosen` and `rejected`, for DPO
    #[arg(long, requires = "reward")]
    pub(crate) pairs: bool,
    /// Send each prompt as a user message in the model's chat template
    #[arg(long)]
    pub(crate) chat: bool,
    /// Completions per prompt
    #[arg(long, default_value_t = 1, value_parser = count())]
    pub(crate) n: usize,
    /// Maximum number of tokens per completion
    #[arg(long, default_value_t = 128)]
    pub(crate) max_new_tokens: usize,
    /// Sampling temperature
    #[arg(long, default_value_t = 1.0, conflicts_with = "greedy")]
    pub(crate) temperature: f64,
    /// Sample from the K most probable tokens
    #[arg(long, conflicts_with = "greedy")]
    pub(crate) top_k: Option<usize>,
    /// Sample from the most probable tokens whose probabilities add up to P
    #[arg(long, conflicts_with = "greedy")]
    pub(crate) top_p: Option<f64>,
    /// Ignore tokens less probable than P times the most probable one
    #[arg(long, conflicts_with = "greedy")]
    pub(crate) min_p: Option<f64>,
    /// Penalty on tokens that are already in the text; 1 means none
    #[arg(long)]
    pub(crate) repetition_penalty: Option<f64>,
    /// Choose the most probable token instead of sampling
    #[arg(long)]
    pub(crate) greedy: bool,
    /// End a completion at this text; can be repeated
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Seed of sampling
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Device: cpu, cuda, cuda:N, wgpu or wgpu:N
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
}

impl GenerateArgs {
    /// Whether prompts are made by a template.
    pub(crate) fn has_template(&self) -> bool {
        self.template.is_some() || self.template_file.is_some()
    }

    /// Column of the completion in the output rows of a template.
    pub(crate) fn completion_column(&self) -> &str {
        self.column.as_deref().unwrap_or("completion")
    }
}

/// `temper verify`
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Exports of Temper (directories or GGUF files), directories or files of reference vectors, or directories of these
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Base model of exported adapters
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// Device: cpu, cuda, cuda:N, wgpu or wgpu:N
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
}

/// `temper export`
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Stage of a run (runs/x/sft), checkpoint, Hugging Face directory, hf:OWNER/MODEL, or GGUF file
    pub(crate) model: PathBuf,
    /// Base model of MODEL, if MODEL is an adapter that does not record it
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// Directory to create, or file ending in .gguf with --gguf
    #[arg(long)]
    pub(crate) to: PathBuf,
    /// Write a GGUF file for llama.cpp, with most weights in this format, and a Modelfile for Ollama
    #[arg(long, value_name = "TYPE", value_parser = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_k_m"], conflicts_with = "adapter")]
    pub(crate) gguf: Option<String>,
    /// Export only the adapter, as a PEFT directory
    #[arg(long, conflicts_with = "merge")]
    pub(crate) adapter: bool,
    /// Merge the adapter into its base model; this is the default
    #[arg(long)]
    pub(crate) merge: bool,
    /// Type of the exported weights
    #[arg(long, value_parser = ["f32", "bf16", "f16"], default_value = "f32")]
    pub(crate) dtype: String,
    /// Largest weight file, as in 5GB or 500MB; larger models get several files and an index
    #[arg(long, value_name = "SIZE", value_parser = size_in_bytes, default_value = "5GB")]
    pub(crate) max_shard_size: u64,
}

/// `temper merge`
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// Models of one shape, or adapters on one base model: stages of a run, checkpoints or directories
    #[arg(required = true, num_args = 2.., value_name = "MODEL")]
    pub(crate) models: Vec<PathBuf>,
    /// Weight of each model, as in `0.7,0.3` [default: equal weights that sum to 1]
    #[arg(long, value_delimiter = ',', value_name = "W,W", allow_hyphen_values = true)]
    pub(crate) weights: Vec<f64>,
    /// Base model of the adapters, if they do not record it
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// Directory to create
    #[arg(long)]
    pub(crate) to: PathBuf,
    /// Type of the written weights
    #[arg(long, value_parser = ["f32", "bf16", "f16"], default_value = "f32")]
    pub(crate) dtype: String,
}

/// `temper chat`
#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// Stage of a run (runs/x/sft), checkpoint, Hugging Face directory, hf:OWNER/MODEL, or GGUF file, with a chat template
    pub(crate) model: PathBuf,
    /// Second model, which gets the same messages and answers after the first one
    #[arg(long, value_name = "MODEL")]
    pub(crate) against: Option<PathBuf>,
    /// Base model of MODEL, if MODEL is an adapter that does not record it
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// Type of weights and matrix products: f32, or bf16, which halves memory
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    pub(crate) dtype: String,
    /// System message at the start of the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Maximum number of tokens per answer
    #[arg(long, default_value_t = 256)]
    pub(crate) max_new_tokens: usize,
    /// Sampling temperature
    #[arg(long, default_value_t = 0.8, conflicts_with = "greedy")]
    pub(crate) temperature: f64,
    /// Sample from the most probable tokens whose probabilities add up to P
    #[arg(long, conflicts_with = "greedy")]
    pub(crate) top_p: Option<f64>,
    /// Choose the most probable token instead of sampling
    #[arg(long)]
    pub(crate) greedy: bool,
    /// Seed of sampling
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Device: cpu, cuda, cuda:N, wgpu or wgpu:N
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
}

/// `temper bench`
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// pretrain7m, reward7m, long4096, lora135m, full135m, gen7m, gen135m, ppo7m, grpo7m, gpt124m,
    /// full1b, lora1b, gen1b, or products (matrix products only)
    pub(crate) workload: String,
    /// Number of timed repetitions [default: 8 training steps, 3 generations, or 5 updates of PPO or GRPO]
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<usize>,
    /// Number of rows; results are then marked as not comparable
    #[arg(long, value_name = "N")]
    pub(crate) rows: Option<usize>,
    /// Number of threads of priority 10 that compute meanwhile, as another program would
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) beside: usize,
    /// Type of the inputs of matrix products: f32, bf16, or tf32 on a GPU
    #[arg(long, value_name = "PRECISION", default_value = "f32")]
    pub(crate) dtype: String,
    /// Device: cpu, cuda, cuda:N, wgpu or wgpu:N
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
}

/// `temper selftest`
#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// Device to test: cpu, cuda, cuda:N, wgpu or wgpu:N
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// Type of the inputs of matrix products: f32, bf16, or tf32 on a GPU
    #[arg(long, value_name = "PRECISION", default_value = "f32")]
    pub(crate) precision: String,
    /// Select the kernels of matrix products by their shapes, as the recipe's key `deterministic` does
    #[arg(long)]
    pub(crate) deterministic: bool,
    /// Skip the timing
    #[arg(long)]
    pub(crate) no_bench: bool,
}

/// `temper get`
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// hf:OWNER/MODEL or hf:datasets/OWNER/NAME, with @REV for a branch, a tag or a commit
    pub(crate) repository: String,
    /// Directory to create [default: models/OWNER/MODEL or datasets/OWNER/NAME]
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// Download only this file of the repository; `*` stands for any characters; can be repeated
    #[arg(long = "file", value_name = "NAME")]
    pub(crate) files: Vec<String>,
}

/// `temper data …`
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Print the tokens of a stage's first batches with ids, roles, targets and positions; of a data file, rows and layout
    Inspect(InspectArgs),
    /// Count rows that share 13 words in a row with the rows of tasks
    Contamination(ContaminationArgs),
}

/// `temper data inspect`
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Number of rows
    #[arg(long, default_value_t = 1, value_parser = count())]
    pub(crate) n: usize,
    /// Print one JSON object per row
    #[arg(long)]
    pub(crate) json: bool,
    /// Print row N of a data file, which is named in place of the recipe
    #[arg(long, value_name = "N", conflicts_with_all = ["stage", "n"])]
    pub(crate) line: Option<u64>,
}

/// A number of bytes with a unit of thousands, as in `5GB`.
fn size_in_bytes(text: &str) -> Result<u64, String> {
    let n_digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(n_digits);
    let scale = match unit.trim().to_ascii_uppercase().as_str() {
        "GB" => 1_000_000_000,
        "MB" => 1_000_000,
        "KB" => 1_000,
        "" | "B" => 1,
        _ => return Err("expected a size such as 5GB, 500MB or 200KB".to_owned()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "expected a size above 0, such as 5GB".to_owned())
}
