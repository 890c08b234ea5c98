//! `[checks]`: checks that stop a faulty run in its first minute. They are made in `plan` and
//! `train`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Checks that stop a faulty run in its first minute. All are on; `false` disables one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct ChecksSection {
    /// Every batch has targets, and at most 1 % of the samples lose all of theirs by cutting.
    pub targets: bool,
    /// The prompts of the first five chats of each source have the same tokens at generation as in
    /// training.
    pub prompt_ids: bool,
    /// The first loss is close to the value expected for untrained weights.
    pub first_loss: bool,
    /// By the second update every trained parameter has had a gradient and has changed.
    pub gradients: bool,
    /// By the second update no frozen parameter has changed.
    pub frozen: bool,
    /// A checkpoint written before step 1 reads back unchanged.
    pub dry_save: bool,
}

impl Default for ChecksSection {
    fn default() -> Self {
        Self {
            targets: true,
            prompt_ids: true,
            first_loss: true,
            gradients: true,
            frozen: true,
            dry_save: true,
        }
    }
}
