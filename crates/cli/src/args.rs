//! The command line, as clap types; what each command does stands in `commands`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Trains and aligns language models from TOML recipes.
#[derive(Debug, Parser)]
#[command(name = "temper", version, about, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 finished, 1 the run failed, 2 the recipe or the command line \
                        is wrong, 75 stopped by a signal with a checkpoint saved."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How progress is shown on stderr: a live line, plain lines, or JSON lines
    #[arg(long, global = true, value_enum, default_value_t = LogStyle::Auto)]
    pub(crate) log: LogStyle,
    /// Threads for tensor work (default: the recipe's `threads`, else all cores)
    #[arg(long, global = true, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

/// How progress reaches the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogStyle {
    /// A live line on a terminal, plain lines elsewhere.
    Auto,
    /// One line a logged step.
    Plain,
    /// One JSON object a line.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check a recipe and print what it would do and cost; nothing is trained
    Plan(PlanArgs),
    /// Run a recipe's stages; finished ones are skipped, a cut one goes on
    Run(RunArgs),
    /// Go on with a run where it stopped
    Resume(ResumeArgs),
    /// Continue prompts with a model; one JSON line a completion
    Generate(GenerateArgs),
    /// Talk with a model; answers appear as they are written
    Chat(ChatArgs),
    /// Loss, perplexity and bits per byte of a model on a file
    Eval(EvalArgs),
    /// Score texts or pairs with a reward model; one JSON line each
    Score(ScoreArgs),
    /// Replay reference vectors and print the largest differences
    Verify(VerifyArgs),
    /// Write a model as a Hugging Face directory
    Export(ExportArgs),
    /// Time one workload of fixed shape on random weights; one JSON line
    Bench(BenchArgs),
    /// List where a recipe can compute on this machine, and what is missing
    Devices,
    /// Compare a device with the CPU, train every kind of stage on it and time it; prints a report
    Selftest(SelftestArgs),
    /// List runs with their state, step, last loss and size
    Runs(RunsArgs),
    /// Look at data as the model will see it
    #[command(subcommand)]
    Data(DataCommand),
    /// Encode and decode text, and render conversations with a chat template
    #[command(subcommand)]
    Tokenizer(TokenizerCommand),
}

/// What every command that reads a recipe takes.
#[derive(Debug, Args)]
pub(crate) struct RecipeArgs {
    /// The recipe, a TOML file
    pub(crate) recipe: PathBuf,
    /// Where `data:` paths lie (else TEMPER_DATA, else the recipe's data_dir, else data/)
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Override a value of the recipe, as in `--set pretrain.max_steps=60`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Use only the first N rows of each source
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Name of the run (default: the recipe's)
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Only this stage
    #[arg(long, value_name = "STAGE")]
    pub(crate) stage: Option<String>,
}

/// `temper plan`
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Skip the short probe that estimates the time
    #[arg(long)]
    pub(crate) no_probe: bool,
    /// List every sample that was cut or dropped, with its place
    #[arg(long)]
    pub(crate) list_cut: bool,
}

/// `temper run`
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
}

/// `temper resume`
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The run: its name under runs/, or its directory
    pub(crate) run: PathBuf,
    /// Override a value that may change without changing the trajectory
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Where `data:` paths lie now
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// `temper generate`
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// A run's stage (runs/x/sft), a checkpoint, or a Hugging Face directory
    pub(crate) model: PathBuf,
    /// The whole weights beside which MODEL, an adapter's folder that does not record them, was trained
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// In what numbers weights are held and multiplied: f32, or bf16 in half the memory
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    pub(crate) dtype: String,
    /// A prompt, raw text unless --chat; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Vec<String>,
    /// Rows of {"prompt"} (raw) or {"messages"} (templated), or plain lines
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub(crate) prompts: Option<PathBuf>,
    /// Put each prompt into the model's chat template as a user's message
    #[arg(long)]
    pub(crate) chat: bool,
    /// Completions a prompt
    #[arg(long, default_value_t = 1)]
    pub(crate) n: usize,
    /// Most tokens a completion may have
    #[arg(long, default_value_t = 128)]
    pub(crate) max_new_tokens: usize,
    /// Divides the logits before sampling
    #[arg(long, default_value_t = 1.0, conflicts_with = "greedy")]
    pub(crate) temperature: f64,
    /// Sample among the K most probable tokens only
    #[arg(long, conflicts_with = "greedy")]
    pub(crate) top_k: Option<usize>,
    /// Sample among the most probable tokens that together reach P
    #[arg(long, conflicts_with = "greedy")]
    pub(crate) top_p: Option<f64>,
    /// Leave out tokens below P times the most probable one's probability
    #[arg(long, conflicts_with = "greedy")]
    pub(crate) min_p: Option<f64>,
    /// Divide the logits of tokens that already stand in the text
    #[arg(long)]
    pub(crate) repetition_penalty: Option<f64>,
    /// Always the most probable token
    #[arg(long)]
    pub(crate) greedy: bool,
    /// End a completion where this text appears; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Seed of the sampling
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Where to run
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
}

/// `temper eval`
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// A run's stage, a checkpoint, or a Hugging Face directory
    pub(crate) model: PathBuf,
    /// The whole weights beside which MODEL, an adapter's folder that does not record them, was trained
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// Text, JSONL with a text column, or any source a recipe takes
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The column that holds the text, for rows of several columns
    #[arg(long, value_name = "COLUMN")]
    pub(crate) text: Option<String>,
    /// Length of the windows (default: the model's context)
    #[arg(long)]
    pub(crate) sequence_length: Option<usize>,
    /// One plain stream instead of separate documents
    #[arg(long)]
    pub(crate) stream: bool,
    /// Only the last part, as a recipe holds it out by position: 0.1 is the last tenth
    #[arg(long, value_name = "FRACTION")]
    pub(crate) part: Option<f64>,
    /// Where to run
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
}

/// `temper score`
#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// A reward stage of a run, a checkpoint, or a Hugging Face sequence classifier with one label
    pub(crate) model: PathBuf,
    /// The whole weights beside which MODEL, an adapter's folder that does not record them, was trained
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// Rows of {"prompt", "chosen", "rejected"}, as a reward stage reads them
    #[arg(long, value_name = "FILE", required_unless_present = "texts")]
    pub(crate) pairs: Option<PathBuf>,
    /// Rows of {"prompt", "completion"} or {"messages"}, as fine-tuning reads them
    #[arg(long, value_name = "FILE", conflicts_with = "pairs")]
    pub(crate) texts: Option<PathBuf>,
    /// Only the first N rows
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Where to run
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
}

/// `temper verify`
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Folders or single files of reference vectors
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Where to run
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
}

/// `temper export`
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// A run's stage, a checkpoint, or a Hugging Face directory
    pub(crate) model: PathBuf,
    /// The whole weights beside which MODEL, an adapter's folder that does not record them, was trained
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// The directory to write; must not exist
    #[arg(long)]
    pub(crate) to: PathBuf,
    /// Write the adapter alone, as a PEFT directory
    #[arg(long, conflicts_with = "merge")]
    pub(crate) adapter: bool,
    /// Write whole weights with the adapter merged in; so it is without either flag
    #[arg(long)]
    pub(crate) merge: bool,
    /// Type of the weights in the file
    #[arg(long, value_parser = ["f32", "bf16", "f16"], default_value = "f32")]
    pub(crate) dtype: String,
}

/// `temper chat`
#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// A run's stage (runs/x/sft), a checkpoint, or a Hugging Face directory with a chat template
    pub(crate) model: PathBuf,
    /// The whole weights beside which MODEL, an adapter's folder that does not record them, was trained
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// In what numbers weights are held and multiplied: f32, or bf16 in half the memory
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    pub(crate) dtype: String,
    /// What the system says before the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Most tokens an answer may have
    #[arg(long, default_value_t = 256)]
    pub(crate) max_new_tokens: usize,
    /// Divides the logits before sampling
    #[arg(long, default_value_t = 0.8, conflicts_with = "greedy")]
    pub(crate) temperature: f64,
    /// Sample among the most probable tokens that together reach P
    #[arg(long, conflicts_with = "greedy")]
    pub(crate) top_p: Option<f64>,
    /// Always the most probable token
    #[arg(long)]
    pub(crate) greedy: bool,
    /// Seed of the sampling
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Where to run
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
}

/// `temper bench`
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// pretrain7m, reward7m, long4096, lora135m, full135m, gen7m, gen135m, ppo7m; gpt124m, full1b, lora1b, gen1b; or
    /// products, their rate alone
    pub(crate) workload: String,
    /// Timed repetitions (default: 8 steps of training, 3 generations, 5 updates)
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<usize>,
    /// Other than the workload's number of rows: the line then says that it is not comparable
    #[arg(long, value_name = "N")]
    pub(crate) rows: Option<usize>,
    /// The numbers that enter matrix products: f32 or bf16; on a GPU tf32 too
    #[arg(long, value_name = "PRECISION", default_value = "f32")]
    pub(crate) dtype: String,
    /// Where to run
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
}

/// `temper selftest`
#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// What to test
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// The numbers that enter matrix products: f32 or bf16; on a GPU tf32 too
    #[arg(long, value_name = "PRECISION", default_value = "f32")]
    pub(crate) precision: String,
    /// Leave out the timed part
    #[arg(long)]
    pub(crate) no_bench: bool,
}

/// `temper runs`
#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    /// Where runs lie
    #[arg(long, default_value = "runs")]
    pub(crate) dir: PathBuf,
    /// One JSON object a stage instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// `temper data …`
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Print ids, text by role, targets, borders and positions of a stage's batches
    Inspect(InspectArgs),
}

/// `temper data inspect`
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// How many rows of the first batches to show
    #[arg(long, default_value_t = 1)]
    pub(crate) n: usize,
    /// One JSON object a row instead of coloured text
    #[arg(long)]
    pub(crate) json: bool,
    /// Show one row of a data file, given in place of the recipe, as it is read
    #[arg(long, value_name = "N", conflicts_with_all = ["stage", "n"])]
    pub(crate) line: Option<u64>,
}

/// `temper tokenizer …`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenizerCommand {
    /// Encode texts; print one JSON array of token ids per line
    Encode(EncodeArgs),
    /// Decode JSON arrays of token ids, one per line; print one JSON string per line
    Decode(DecodeArgs),
    /// Render a conversation with the model's chat template
    Render(RenderArgs),
}

/// `temper tokenizer encode`
#[derive(Debug, Args)]
pub(crate) struct EncodeArgs {
    /// A Hugging Face directory, a tokenizer.json, or a run's stage
    pub(crate) tokenizer: PathBuf,
    /// File with one text per line (default: stdin). A line that is a JSON string is decoded first,
    /// so that a text can contain line breaks
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Add the special tokens that the model expects around a text, such as bos
    #[arg(long)]
    pub(crate) add_special_tokens: bool,
}

/// `temper tokenizer decode`
#[derive(Debug, Args)]
pub(crate) struct DecodeArgs {
    /// A Hugging Face directory, a tokenizer.json, or a run's stage
    pub(crate) tokenizer: PathBuf,
    /// File with one JSON array of token ids per line (default: stdin)
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Omit special tokens from the text
    #[arg(long)]
    pub(crate) skip_special_tokens: bool,
}

/// `temper tokenizer render`
#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// A Hugging Face directory with a chat template, or a run's stage
    pub(crate) tokenizer: PathBuf,
    /// JSON file with the messages: a list of objects with `role` and `content`
    #[arg(long, value_name = "FILE")]
    pub(crate) messages: PathBuf,
    /// JSON file with the list of tools that the template describes to the model
    #[arg(long, value_name = "FILE")]
    pub(crate) tools: Option<PathBuf>,
    /// End with the prompt for the assistant's next message
    #[arg(long)]
    pub(crate) generation_prompt: bool,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("expected KEY=VALUE, as in pretrain.max_steps=60".to_owned()),
    }
}
