//! Errors of generation, with hints.

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed generation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A sampling option is out of range.
    #[error("{name} must be {range}: `{value}`")]
    Range {
        /// The option's name on the command line.
        name: &'static str,
        /// The accepted values.
        range: &'static str,
        /// The value.
        value: String,
    },
    /// A prompt has no tokens.
    #[error("prompt {prompt_idx} has no tokens")]
    EmptyPrompt {
        /// Index of the prompt.
        prompt_idx: usize,
    },
    /// A prompt leaves no room for a new token.
    #[error("prompt {prompt_idx} does not fit into the model's context of {n_positions}: `{len}`")]
    PromptTooLong {
        /// Index of the prompt.
        prompt_idx: usize,
        /// Its number of tokens.
        len: usize,
        /// Number of positions of the model.
        n_positions: usize,
    },
    /// A token id has no row in the model's embedding.
    #[error(
        "prompt {prompt_idx} has a token outside the model's vocabulary of {vocab_size}: `{id}`"
    )]
    UnknownToken {
        /// Index of the prompt.
        prompt_idx: usize,
        /// The id.
        id: u32,
        /// Number of rows of the model's embedding.
        vocab_size: usize,
    },
    /// A logit is NaN or infinite, or all are minus infinity.
    #[error("the logits of prompt {prompt_idx} after {n_new} new tokens are not finite")]
    NotFinite {
        /// Index of the prompt.
        prompt_idx: usize,
        /// Number of tokens generated before.
        n_new: usize,
    },
    /// A constraint allows no token, or failed.
    #[error("the constraint allows no further token: {reason}")]
    Constraint {
        /// The reason.
        reason: String,
    },
}

impl Error {
    /// A hint for the user.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Range { name: "temperature", .. } => {
                "use --greedy to choose the most likely token each time".to_owned()
            }
            Self::Range { range, name, .. } => format!("omit {name}, or make it {range}"),
            Self::EmptyPrompt { .. } => {
                "a tokenizer without a start token needs at least one character of prompt"
                    .to_owned()
            }
            Self::PromptTooLong { n_positions, .. } => {
                format!("shorten the prompt to {} tokens or fewer", n_positions.saturating_sub(1))
            }
            Self::UnknownToken { .. } => {
                "the tokenizer does not belong to this model: use the one in its directory"
                    .to_owned()
            }
            Self::Constraint { .. } => "use a simpler schema".to_owned(),
            Self::NotFinite { .. } => {
                "the weights may be damaged or diverged: try an earlier checkpoint".to_owned()
            }
        })
    }
}
