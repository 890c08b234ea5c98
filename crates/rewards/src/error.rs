//! Errors of this crate.

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Settings of a reward that cannot be used. The sentence follows the name of the key, except that of a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A regular expression that does not compile.
    #[error("is not a valid regular expression: {reason}")]
    Pattern {
        /// The compiler's explanation, on one line.
        reason: String,
    },
    /// A schema that is not JSON or has keywords that are not implemented.
    #[error("is not a schema that can be checked: {reason}")]
    Schema {
        /// The first problem, with its place in the schema.
        reason: String,
    },
    /// A tag that is named twice, although an answer may have it once.
    #[error("names `{tag}` twice, and each tag may occur once: no answer could have the reward")]
    RepeatedTag {
        /// The tag.
        tag: String,
    },
    /// A program that computes no rewards.
    #[error("the program of a reward, `{argv}`: {reason}")]
    Command {
        /// Program and arguments.
        argv: String,
        /// The first problem.
        reason: String,
    },
}

impl Error {
    /// The key with the problem.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Pattern { .. } => "pattern",
            Self::Schema { .. } => "schema",
            Self::RepeatedTag { .. } => "tags",
            Self::Command { .. } => "argv",
        }
    }

    /// A remedy.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Pattern { .. } => {
                "the engine takes linear time, so it has no look-around and no back-references"
            }
            Self::Schema { .. } => "docs/rewards.md lists the keywords that are checked",
            Self::RepeatedTag { .. } => "name each tag once",
            Self::Command { .. } => {
                "try it in the recipe's directory: it reads lines of JSON and answers each with {\"reward\": NUMBER}"
            }
        }
    }
}
