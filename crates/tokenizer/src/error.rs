//! The errors of this crate and what to do about each; it prints nothing.

use std::path::PathBuf;

/// What every function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a tokenizer or a chat template could not be read or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read, is too large or is not UTF-8.
    #[error(transparent)]
    File(#[from] fsio::Error),

    /// A JSON file does not parse.
    #[error("{path}: not valid JSON: {reason}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        reason: String,
    },

    /// There is no tokenizer in the place that was named.
    #[error("no tokenizer.json: `{path}`")]
    Missing {
        /// The folder or file that was looked at.
        path: PathBuf,
    },

    /// A tokenizer.json is malformed, hostile or asks for something we refuse.
    #[error("{path}: {reason}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the offending value.
        reason: String,
        /// What to do about it, where something can be done.
        hint: Option<String>,
    },

    /// The tokenizers library failed, or panicked, on some input.
    #[error("tokenizer failed while {doing}: {reason}")]
    Backend {
        /// What was being done.
        doing: &'static str,
        /// What the library said.
        reason: String,
    },

    /// A tokenizer cannot be trained as asked.
    #[error("cannot train a tokenizer: {reason}")]
    Training {
        /// What is wrong, with the offending value.
        reason: String,
        /// What to do about it.
        hint: String,
    },

    /// A special token that is needed is not in the vocabulary.
    #[error("the tokenizer has no {what} token")]
    MissingSpecialToken {
        /// Which one: `end-of-text`, `bos`, ...
        what: &'static str,
    },

    /// No chat template goes by this name.
    #[error("unknown chat template: `{name}`")]
    UnknownTemplate {
        /// The name as given.
        name: String,
    },

    /// A chat template does not parse.
    #[error("chat template `{name}` does not parse: {reason}")]
    TemplateSyntax {
        /// The template's name.
        name: String,
        /// What the parser said, with the line.
        reason: String,
    },

    /// A chat template is larger than the limit.
    #[error("chat template `{name}` has {bytes} bytes, more than the limit of {limit}")]
    TemplateSize {
        /// The template's name.
        name: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },

    /// A chat template raised an error by itself (`raise_exception`).
    #[error("chat template `{name}` refuses these messages: `{message}`")]
    TemplateRaised {
        /// The template's name.
        name: String,
        /// What the template said.
        message: String,
    },

    /// A chat template used more work, memory or depth than it may.
    #[error("chat template `{name}` exceeded its budget: {reason}")]
    TemplateBudget {
        /// The template's name.
        name: String,
        /// Which budget.
        reason: String,
    },

    /// A chat template failed while it was rendered.
    #[error("chat template `{name}` failed: {reason}")]
    TemplateRender {
        /// The template's name.
        name: String,
        /// What the engine said, with the line.
        reason: String,
    },

    /// The assistant's words cannot be located exactly in what the template renders.
    #[error("chat template `{name}`: {reason}")]
    Spans {
        /// The template's name.
        name: String,
        /// What cannot be located and why.
        reason: String,
        /// What to do about it.
        hint: String,
    },

    /// A role that no template knows.
    #[error("unknown role: `{role}`")]
    UnknownRole {
        /// The role as given.
        role: String,
    },

    /// A conversation that holds nothing to train on.
    #[error("{reason}")]
    Conversation {
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    /// What to do next, in one sentence; None where nothing helps.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::File(inner) => return inner.hint(),
            Self::Json { .. } => "restore the file from where it came".to_owned(),
            Self::Missing { .. } => "name a tokenizer.json, or a folder that holds one".to_owned(),
            Self::Refused { hint, .. } => return hint.clone(),
            Self::Backend { .. } => {
                "the tokenizer.json is broken or hostile; take it from its publisher again"
                    .to_owned()
            }
            Self::Training { hint, .. } | Self::Spans { hint, .. } => hint.clone(),
            Self::MissingSpecialToken { what } => {
                format!("name a {what} token in tokenizer_config.json beside the tokenizer.json")
            }
            Self::UnknownTemplate { .. } => {
                "use `chatml`, `plain`, `model` or the path of a .jinja file".to_owned()
            }
            Self::TemplateSyntax { .. } => {
                "the template must be Jinja as transformers reads it".to_owned()
            }
            Self::TemplateSize { .. } => "real templates have a few KiB; check the file".to_owned(),
            Self::TemplateRaised { .. } => {
                "change the conversation as the template asks, or choose another template"
                    .to_owned()
            }
            Self::TemplateBudget { .. } => {
                "a template that needs this much is broken or hostile; choose another".to_owned()
            }
            Self::TemplateRender { .. } => {
                "the template may need fields that plain messages lack; choose another template, \
                 such as `chatml`"
                    .to_owned()
            }
            Self::UnknownRole { .. } => "known roles: system, user, assistant, tool".to_owned(),
            Self::Conversation { .. } => return None,
        };
        Some(text)
    }
}
