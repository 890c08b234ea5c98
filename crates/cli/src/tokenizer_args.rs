//! Arguments of `temper tokenizer`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `temper tokenizer …`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenizerCommand {
    /// Encode texts; print one JSON array of token ids per line
    Encode(EncodeArgs),
    /// Decode JSON arrays of token ids, one per line; print one JSON string per line
    Decode(DecodeArgs),
    /// Render a conversation with the model's chat template
    Render(RenderArgs),
    /// Train a tokenizer on the texts of files
    Train(TrainTokenizerArgs),
}

/// `temper tokenizer encode`
#[derive(Debug, Args)]
pub(crate) struct EncodeArgs {
    /// A Hugging Face directory, hf:OWNER/MODEL, a tokenizer.json, or a run's stage
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
    /// A Hugging Face directory, hf:OWNER/MODEL, a tokenizer.json, or a run's stage
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
    /// A Hugging Face directory or hf:OWNER/MODEL with a chat template, or a run's stage
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

/// `temper tokenizer train`
#[derive(Debug, Args)]
pub(crate) struct TrainTokenizerArgs {
    /// Training text: files, directories or patterns, read as documents of pretraining
    #[arg(required = true, value_name = "FILES")]
    pub(crate) files: Vec<PathBuf>,
    /// Kind of tokenizer
    #[arg(long)]
    pub(crate) kind: TokenizerKind,
    /// Number of tokens of a byte-bpe, including bytes and special tokens
    #[arg(long, value_name = "N", required_if_eq("kind", "byte-bpe"))]
    pub(crate) vocab_size: Option<usize>,
    /// Special token; can be repeated, in the order of the ids (default: `<|endoftext|>`,
    /// `<|im_start|>`, `<|im_end|>` and `<|pad|>`)
    #[arg(long, value_name = "TOKEN")]
    pub(crate) special_token: Vec<String>,
    /// New directory for the tokenizer; a recipe reads it with `[tokenizer] load = "DIR"`
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
}

/// Kind of a tokenizer to train, as in a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenizerKind {
    /// Byte-level byte-pair encoding, as in GPT-2
    ByteBpe,
    /// One token per character of the files
    Char,
}
