//! Rewards that are computed from the text of a completion, without a model: numbers, choices, exact answers, patterns, tags,
//! lengths, repetitions and JSON.
//!
//! A reward is a pure function of the completion and of the texts that the data has for its prompt. A prompt without the
//! needed text has no such reward: it is skipped, and is neither 0 nor 1. Rewards that a program computes are read here too;
//! the replies of a judge come from elsewhere, and their scores are read here.
//!
//! # Example
//!
//! ```
//! use recipe::{Extract, NumberKeys, Reward, RewardKind, Template};
//! use rewards::{Completion, Rewards};
//!
//! let kind = RewardKind::Number(NumberKeys {
//!     answer: Template::parse("{answer}")?,
//!     extract: Extract::Last,
//!     tolerance: 0.0,
//! });
//! let rewards = Rewards::new(&[Reward { kind, weight: 2.0 }], 64).map_err(|(_, error)| error)?;
//! let completion = Completion { text: "That makes $1,250.00.", n_tokens: 9 };
//! let scored = rewards.score(&[Some("1250".to_owned())], &completion);
//! assert_eq!(scored.total(), Some(2.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod choice;
mod command;
mod error;
mod extract;
mod format;
mod json_schema;
mod judge;
mod length;
mod number;
mod repetition;
mod scan;
mod set;
mod value;

pub use command::{CommandValues, GradedText, command_files, run_command};
pub use error::{Error, Result};
pub use set::{Completion, Part, Rewards, Scored};
