//! A first recipe for a model and data files: every value is chosen from their sizes, and a comment says from which.
//!
//! [`Facts`] come from a plan; [`Values`] are chosen from them; [`recipe`] writes the file, of one [`Section`] or of several
//! that continue each other. The
//! command `temper init` plans the recipe with [`Values::to_measure`], reads the facts off that plan, and corrects the values
//! until the machine's memory suffices.

mod facts;
mod lines;
mod online;
mod right_answer;
mod text;
mod values;

pub use facts::{Facts, Lengths};
pub use right_answer::RightAnswer;
pub use text::recipe;
pub use values::Values;

/// A stage of a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// Purpose.
    pub kind: Kind,
    /// Sizes of its model and data.
    pub facts: Facts,
    /// Values of its keys.
    pub values: Values,
}

/// Purpose of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Continued pretraining on texts.
    Pretrain,
    /// Supervised fine-tuning on chats.
    Sft,
    /// A reward model from pairs of answers.
    Reward,
    /// Direct preference optimization on pairs of answers.
    Dpo,
    /// Kahneman–Tversky optimization on labelled answers.
    Kto,
    /// PPO on prompts, with a reward model.
    Ppo,
    /// GRPO on prompts whose rows have the right answer.
    Grpo,
}

impl Kind {
    /// Name of the stage's section.
    pub fn section(self) -> &'static str {
        match self {
            Self::Pretrain => "pretrain",
            Self::Sft => "sft",
            Self::Reward => "reward",
            Self::Dpo => "dpo",
            Self::Kto => "kto",
            Self::Ppo => "ppo",
            Self::Grpo => "grpo",
        }
    }

    /// Whether the model answers prompts during training.
    pub fn is_online(self) -> bool {
        matches!(self, Self::Ppo | Self::Grpo)
    }

    /// Key that sets the size of a step, and whether it counts tokens; otherwise it counts rows or pairs.
    pub(crate) fn step_key(self) -> (&'static str, bool) {
        match self {
            Self::Pretrain | Self::Sft => ("tokens_per_step", true),
            Self::Reward | Self::Dpo => ("pairs_per_step", false),
            Self::Kto => ("rows_per_step", false),
            Self::Ppo => ("episodes_per_step", false),
            Self::Grpo => ("prompts_per_step", false),
        }
    }
}
