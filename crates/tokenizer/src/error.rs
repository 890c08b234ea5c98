//! The errors of this crate, each with advice for the user.

use std::path::{Path, PathBuf};

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A tokenizer or a chat template that cannot be read or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read, is too large or is not UTF-8.
    #[error(transparent)]
    File(#[from] fsio::Error),

    /// A GGUF file could not be read.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),

    /// A file is not valid JSON.
    #[error("{path}: not valid JSON: {reason}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's message, with line and column.
        reason: String,
    },

    /// There is no tokenizer at this path.
    #[error("no tokenizer.json: `{path}`")]
    Missing {
        /// The directory or file.
        path: PathBuf,
    },

    /// There is nothing at this path.
    #[error("no such file or directory: `{path}`")]
    NoSuchFile {
        /// The path.
        path: PathBuf,
    },

    /// A tokenizer.json is malformed or has parts that are not supported.
    #[error("{path}: {reason}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// The problem, with the offending value.
        reason: String,
        /// Advice, if there is any.
        hint: Option<String>,
    },

    /// The tokenizers library failed or panicked.
    #[error("tokenizer failed while {doing}: {reason}")]
    Backend {
        /// The operation.
        doing: &'static str,
        /// The library's message.
        reason: String,
    },

    /// The operating system starts no thread for compiling a template.
    #[error("{0}")]
    NoThread(
        #[from]
        #[source]
        fsio::NoThread,
    ),

    /// One of the errors below, with the file that is at fault.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// The error.
        source: Box<Error>,
    },

    /// A tokenizer takes too long on a text or makes it too long.
    #[error("tokenizer exceeded a limit: {reason}")]
    TextBudget {
        /// The limit, and the step or pattern that exceeded it.
        reason: String,
    },

    /// A token has no row in the model's embedding.
    #[error("token `{token}` has id `{id}`, but the model's embedding has {n_rows} rows")]
    IdBeyondRows {
        /// The token, as in the vocabulary.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the embedding.
        n_rows: usize,
    },

    /// A tokenizer cannot be trained with these settings or texts.
    #[error("cannot train a tokenizer: {reason}")]
    Training {
        /// The problem, with the offending value.
        reason: String,
        /// Advice.
        hint: String,
    },

    /// The vocabulary lacks a special token that is needed.
    #[error("the tokenizer has no {what} token")]
    MissingSpecialToken {
        /// The token: `end-of-text`, `bos`, ...
        what: &'static str,
    },

    /// The vocabulary lacks a token.
    #[error("the tokenizer has no token `{token}`")]
    UnknownToken {
        /// The token.
        token: String,
    },

    /// There is no chat template of this name.
    #[error("unknown chat template: `{name}`")]
    UnknownTemplate {
        /// The name.
        name: String,
    },

    /// A chat template does not parse.
    #[error("chat template `{name}` does not parse: {reason}")]
    TemplateSyntax {
        /// The template's name.
        name: String,
        /// The parser's message, with the line.
        reason: String,
    },

    /// A chat template is larger than the limit.
    #[error("chat template `{name}` has {bytes} bytes, more than the limit of {limit}")]
    TemplateSize {
        /// The template's name.
        name: String,
        /// Size of the template in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },

    /// A chat template called `raise_exception`.
    #[error("chat template `{name}` refuses these messages: `{message}`")]
    TemplateRaised {
        /// The template's name.
        name: String,
        /// The template's message.
        message: String,
    },

    /// A chat template exceeded its limit of work, memory or depth.
    #[error("chat template `{name}` exceeded a limit: {reason}")]
    TemplateBudget {
        /// The template's name.
        name: String,
        /// The limit that was exceeded.
        reason: String,
    },

    /// A chat template failed during rendering.
    #[error("chat template `{name}` failed: {reason}")]
    TemplateRender {
        /// The template's name.
        name: String,
        /// The engine's message, with the line.
        reason: String,
    },

    /// The assistant's words cannot be located exactly in the rendered conversation.
    #[error("chat template `{name}`: {reason}")]
    Spans {
        /// The template's name.
        name: String,
        /// The message that cannot be located, and why.
        reason: String,
        /// Advice.
        hint: String,
    },

    /// The prompt of a turn has other tokens at generation than in training.
    #[error(
        "chat template `{name}`: the prompt for message {message} has the tokens {prompt:?} at \
         generation and {row:?} in training"
    )]
    PromptIds {
        /// The template's name.
        name: String,
        /// Index of the message.
        message: usize,
        /// Ids of the prompt at generation.
        prompt: Vec<u32>,
        /// Ids before the turn's targets in training.
        row: Vec<u32>,
    },

    /// The template does not write a field that the conversation has.
    #[error("chat template `{name}` does not write `{field}`")]
    FieldNotRendered {
        /// The template's name.
        name: String,
        /// `tools`, or a field of messages.
        field: String,
    },

    /// A role other than system, user, assistant and tool.
    #[error("unknown role: `{role}`")]
    UnknownRole {
        /// The role.
        role: String,
    },

    /// A conversation without anything to train on.
    #[error("{reason}")]
    Conversation {
        /// The problem.
        reason: String,
    },
}

impl Error {
    /// The error with the file of the tokenizer, unless it names one or is about something else.
    pub(crate) fn in_file(self, path: Option<&Path>) -> Self {
        let lacks_path = matches!(
            self,
            Self::Backend { .. }
                | Self::TextBudget { .. }
                | Self::IdBeyondRows { .. }
                | Self::MissingSpecialToken { .. }
                | Self::UnknownToken { .. }
        );
        match path {
            Some(path) if lacks_path => {
                Self::InFile { path: path.to_owned(), source: Box::new(self) }
            }
            Some(_) | None => self,
        }
    }

    /// Advice for the user in one sentence, if there is any.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::File(inner) => return inner.hint(),
            Self::Gguf(inner) => return inner.hint(),
            Self::InFile { source, .. } => return source.hint(),
            Self::Json { .. } => "restore the file from its source".to_owned(),
            Self::NoSuchFile { path } if fsio::nearest_path(path).is_some() => {
                let near = fsio::nearest_path(path).unwrap_or_default();
                format!("did you mean `{}`?", near.display())
            }
            Self::Missing { .. } | Self::NoSuchFile { .. } => {
                "name a tokenizer.json, tokenizer.model or .tiktoken file, or a directory that contains one, or \
                 vocab.json and merges.txt"
                    .to_owned()
            }
            Self::Refused { hint, .. } => return hint.clone(),
            Self::Backend { .. } => {
                "the tokenizer.json is damaged or malicious; get it from its publisher again"
                    .to_owned()
            }
            Self::Training { hint, .. } | Self::Spans { hint, .. } => hint.clone(),
            Self::MissingSpecialToken { what } => {
                format!("set the {what} token in tokenizer_config.json, next to the tokenizer.json")
            }
            Self::NoThread(_) => "raise the limits of this shell on processes and memory (`ulimit -u`, `ulimit -v`)".to_owned(),
            Self::TextBudget { .. } => {
                "the tokenizer.json is broken or malicious, or the text is not one; use another \
                 tokenizer, or remove the text"
                    .to_owned()
            }
            Self::IdBeyondRows { .. } => {
                "the tokenizer has tokens that the model was not trained with; use the model's own \
                 tokenizer, or add rows with `add_tokens` when you train"
                    .to_owned()
            }
            Self::UnknownToken { .. } => {
                "name a token of its vocabulary, or add it with `add_tokens` in the stage's section"
                    .to_owned()
            }
            Self::UnknownTemplate { .. } => {
                "use `chatml`, `plain`, `model` or the path of a .jinja file".to_owned()
            }
            Self::TemplateSyntax { .. } => {
                "the template must be Jinja in the dialect of transformers".to_owned()
            }
            Self::TemplateSize { .. } => {
                "chat templates usually have a few KiB; check the file".to_owned()
            }
            Self::TemplateRaised { .. } => {
                "change the conversation to what the template expects, or choose another template"
                    .to_owned()
            }
            Self::TemplateBudget { .. } => {
                "a template that exceeds the limits is broken or malicious; choose another"
                    .to_owned()
            }
            Self::TemplateRender { .. } => {
                "the template may need fields that these messages lack; choose another template, \
                 such as `chatml`"
                    .to_owned()
            }
            Self::PromptIds { .. } => {
                "a model trained so would see other prompts than it was trained on; choose another \
                 template, or switch the check off with `checks.prompt_ids = false`"
                    .to_owned()
            }
            Self::FieldNotRendered { field, .. } => format!(
                "choose a template that writes it, or leave it out with `ignore_columns = \
                 [\"{field}\"]` in the source"
            ),
            Self::UnknownRole { .. } => "known roles: system, user, assistant, tool".to_owned(),
            Self::Conversation { .. } => return None,
        };
        Some(text)
    }
}
