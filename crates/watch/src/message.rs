//! Notes and warnings of a run.

use serde::{Deserialize, Serialize};

/// Kind of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageKind {
    /// Work other than steps.
    #[default]
    Note,
    /// Something that the user should know.
    Warning,
}

/// A note or a warning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    /// Note or warning.
    pub kind: MessageKind,
    /// The stage in which it appeared; empty before the first one.
    pub stage: String,
    /// Number of updates made before.
    pub step: u64,
    /// The text.
    pub text: String,
}
