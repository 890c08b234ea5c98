//! `[checks]`: the checks that stop a wrong run in its first minute, each to be switched off by
//! name. Makes none of them: that is `train`'s.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Checks that stop a wrong run in its first minute. All are on; `false` switches one off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct ChecksSection {
    /// A batch has targets, and at most 1 % of the samples lost all of theirs by cutting.
    pub targets: bool,
    /// The first loss is near what the vocabulary allows.
    pub first_loss: bool,
    /// By the second update every trained parameter has had a gradient and has changed.
    pub gradients: bool,
    /// By the second update no frozen parameter has changed.
    pub frozen: bool,
    /// A checkpoint written before step 1 reads back as it was.
    pub dry_save: bool,
}

impl Default for ChecksSection {
    fn default() -> Self {
        Self { targets: true, first_loss: true, gradients: true, frozen: true, dry_save: true }
    }
}
