//! Errors of an export. A failed export leaves no directory behind.

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed export.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be written.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// The model's weights cannot be written.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// A weight file cannot be written.
    #[error(transparent)]
    Weights(#[from] tensor_file::Error),
    /// A GGUF file cannot be written.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    /// The tokenizer cannot be written.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// A generation_config.json is not a JSON object.
    #[error("{}: {message}", .path.display())]
    Json {
        /// The file.
        path: std::path::PathBuf,
        /// The problem.
        message: String,
    },
    /// The tokenizer has ids without a row in the model's embedding.
    #[error(
        "{}the tokenizer has {n_tokens} ids, but the model's vocabulary has only: `{vocab_size}`",
        path.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default()
    )]
    Vocabulary {
        /// The file that gives a token the largest id.
        path: Option<std::path::PathBuf>,
        /// Largest id of the tokenizer plus one.
        n_tokens: usize,
        /// Rows of the model's embedding.
        vocab_size: usize,
    },
}

impl Error {
    /// A hint for the user.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Weights(error) => error.hint(),
            Self::Gguf(error) => error.hint(),
            Self::Tokenizer(error) => error.hint(),
            Self::Json { .. } => Some("correct the file, or remove it".to_owned()),
            Self::Vocabulary { .. } => {
                Some("export with the tokenizer that the model was trained with".to_owned())
            }
        }
    }
}
