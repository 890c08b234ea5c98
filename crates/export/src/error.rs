//! What can go wrong while a model is written out; nothing is left behind where it does.

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An export that could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder could not be written.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// The model's weights cannot be written.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// A weight file cannot be written.
    #[error(transparent)]
    Weights(#[from] tensor_file::Error),
    /// The tokenizer could not be written.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// The tokenizer gives ids for which the model has no embedding.
    #[error("the tokenizer has {n_tokens} ids, the model's vocabulary only: `{vocab_size}`")]
    Vocabulary {
        /// Largest id of the tokenizer plus one.
        n_tokens: usize,
        /// Rows of the model's embedding.
        vocab_size: usize,
    },
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Weights(error) => error.hint(),
            Self::Tokenizer(error) => error.hint(),
            Self::Vocabulary { .. } => {
                Some("export with the tokenizer that the model was trained with".to_owned())
            }
        }
    }
}
