//! Arguments of the commands that measure models and data.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

/// A number of things that are printed; all of them are in memory at once.
pub(crate) fn count() -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(1..=100_000)
}

/// `temper eval`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("measured").required(true).args(["file", "task"]))]
pub(crate) struct EvalArgs {
    /// Stage of a run (runs/x/sft), checkpoint, Hugging Face directory, hf:OWNER/MODEL, or GGUF file
    pub(crate) model: PathBuf,
    /// Base model of MODEL, if MODEL is an adapter that does not record it
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// Text file, JSONL with a text column or with chats, or any other data source. Of chats, the assistant's answers are measured
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Column of the text, if rows have several columns
    #[arg(long, value_name = "COLUMN", conflicts_with = "task")]
    pub(crate) text: Option<String>,
    /// Tokens per row [default: the model's context, at most 1024]
    #[arg(long, conflicts_with = "task")]
    pub(crate) sequence_length: Option<usize>,
    /// Read the file as one stream instead of separate documents
    #[arg(long, conflicts_with = "task")]
    pub(crate) stream: bool,
    /// Use only the end of the file, as `by = "position"` does in a recipe: 0.1 is the last tenth
    #[arg(long, value_name = "FRACTION", conflicts_with = "task", value_parser = fraction)]
    pub(crate) part: Option<f64>,
    /// Few-shot task: a built-in one (arc_easy, hellaswag, gsm8k, …) or a task file FILE.toml; can be repeated
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub(crate) task: Vec<PathBuf>,
    /// Only the first N rows of each task
    #[arg(long, value_name = "N", conflicts_with = "file", value_parser = count())]
    pub(crate) limit: Option<usize>,
    /// Numbers of examples before each question, as in 0,1,4 [default: the task's own]
    #[arg(long, value_name = "K,…", conflicts_with = "file", value_delimiter = ',')]
    pub(crate) shots: Vec<usize>,
    /// Directory of the tasks' data [default: TEMPER_DATA]
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Render prompts with the model's chat template: examples become messages of user and assistant
    #[arg(long, conflicts_with = "file")]
    pub(crate) chat: bool,
    /// Reward model that ranks the completions of tasks with a `best_of` step
    #[arg(long, value_name = "MODEL", conflicts_with = "file")]
    pub(crate) reward: Option<PathBuf>,
    /// Evaluate every checkpoint of the stage MODEL, and its final model
    #[arg(long, conflicts_with = "file")]
    pub(crate) all_checkpoints: bool,
    /// Write a plot of the metrics over the numbers of examples
    #[arg(long, value_name = "FILE.svg", conflicts_with = "file", requires = "shots")]
    pub(crate) svg: Option<PathBuf>,
    /// Print one JSON object per row, then one per task and number of examples
    #[arg(long, conflicts_with = "file")]
    pub(crate) json: bool,
    /// Device: cpu, cuda, cuda:N, wgpu or wgpu:N
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
}

/// `temper compare`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("by").required(true).multiple(true).args(["reward", "judge", "html"]))]
pub(crate) struct CompareArgs {
    /// Model whose wins are counted: a stage of a run, checkpoint, Hugging Face directory or GGUF file
    pub(crate) a: PathBuf,
    /// Model that it is compared with
    pub(crate) b: PathBuf,
    /// Another model whose answers are shown in the page of --html
    #[arg(requires = "html")]
    pub(crate) c: Option<PathBuf>,
    /// Prompts, one a line: {"prompt": …} or plain text
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts: PathBuf,
    /// Reward model; the answer with the higher score is better
    #[arg(long, value_name = "MODEL")]
    pub(crate) reward: Option<PathBuf>,
    /// Language model that reads both answers in both orders and names the better one
    #[arg(long, value_name = "MODEL", conflicts_with = "reward")]
    pub(crate) judge: Option<PathBuf>,
    /// Write a page with the answers beside each other; needs neither --reward nor --judge
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Only the first N prompts
    #[arg(long, value_name = "N", value_parser = count())]
    pub(crate) limit: Option<usize>,
    /// Continue prompts as plain text instead of rendering the chat template
    #[arg(long)]
    pub(crate) raw: bool,
    /// Maximum number of tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count())]
    pub(crate) max_new_tokens: usize,
    /// Sampling temperature; 0 takes the most likely token
    #[arg(long, default_value_t = 0.0)]
    pub(crate) temperature: f64,
    /// Seed of the samples
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print one JSON object per prompt, then a summary
    #[arg(long)]
    pub(crate) json: bool,
    /// Device: cpu, cuda, cuda:N, wgpu or wgpu:N
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
}

/// `temper score`
#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// Reward stage of a run, its checkpoint, or Hugging Face sequence classifier with one label
    pub(crate) model: PathBuf,
    /// Base model of MODEL, if MODEL is an adapter that does not record it
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// File of pairs, with `prompt`, `chosen` and `rejected`
    #[arg(long, value_name = "FILE", required_unless_present = "texts")]
    pub(crate) pairs: Option<PathBuf>,
    /// File of texts, with `prompt` and `completion`, or `messages`
    #[arg(long, value_name = "FILE", conflicts_with = "pairs")]
    pub(crate) texts: Option<PathBuf>,
    /// Only the first N rows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Device: cpu, cuda, cuda:N, wgpu or wgpu:N
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
}

/// `temper data contamination`
#[derive(Debug, Args)]
pub(crate) struct ContaminationArgs {
    /// Data files of any format, directories or patterns
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Built-in task or task file FILE.toml; can be repeated
    #[arg(long, value_name = "NAME|FILE.toml", required = true)]
    pub(crate) task: Vec<PathBuf>,
    /// Only the first N rows of each task
    #[arg(long, value_name = "N", value_parser = count())]
    pub(crate) limit: Option<usize>,
    /// Directory of the tasks' data [default: TEMPER_DATA]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print one JSON object per task
    #[arg(long)]
    pub(crate) json: bool,
}

/// A part of a whole: above 0 and at most 1.
fn fraction(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
    if value > 0.0 && value <= 1.0 {
        Ok(value)
    } else {
        Err("must be above 0 and at most 1".into())
    }
}
