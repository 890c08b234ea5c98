//! What can go wrong in generation, with the remedy of each. It prints nothing.

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why nothing could be generated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A sampling option outside its range.
    #[error("{name} must be {range}: `{value}`")]
    Range {
        /// The option as the command line spells it.
        name: &'static str,
        /// The values that are allowed.
        range: &'static str,
        /// The value that was given.
        value: String,
    },
    /// A prompt without a single token has nothing to continue.
    #[error("prompt {prompt_idx} has no tokens")]
    EmptyPrompt {
        /// Index of the prompt among those given.
        prompt_idx: usize,
    },
    /// A prompt that leaves no room for one new token.
    #[error("prompt {prompt_idx} does not fit into the model's context of {n_positions}: `{len}`")]
    PromptTooLong {
        /// Index of the prompt among those given.
        prompt_idx: usize,
        /// Its tokens.
        len: usize,
        /// Positions that the model has.
        n_positions: usize,
    },
    /// A token id that the model has no embedding for.
    #[error(
        "prompt {prompt_idx} holds a token beyond the model's vocabulary of {vocab_size}: `{id}`"
    )]
    UnknownToken {
        /// Index of the prompt among those given.
        prompt_idx: usize,
        /// The id.
        id: u32,
        /// Rows of the model's embedding.
        vocab_size: usize,
    },
    /// The model's logits hold NaN, or nothing but minus infinity.
    #[error("the logits of prompt {prompt_idx} after {n_new} new tokens are not finite")]
    NotFinite {
        /// Index of the prompt among those given.
        prompt_idx: usize,
        /// Tokens generated before.
        n_new: usize,
    },
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Range { name: "temperature", .. } => {
                "use --greedy to take the likeliest token each time".to_owned()
            }
            Self::Range { range, name, .. } => format!("leave {name} out, or make it {range}"),
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
            Self::NotFinite { .. } => {
                "the weights may be damaged or diverged: try an earlier checkpoint".to_owned()
            }
        })
    }
}
