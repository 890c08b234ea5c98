//! The stages of a recipe and the order in which they run. A new stage is a line of the table below.

use crate::Recipe;
use crate::diagnostics::Diagnostics;
use crate::dpo::DpoSection;
use crate::ppo::PpoSection;
use crate::pretrain::PretrainSection;
use crate::reward::RewardSection;
use crate::sft::SftSection;
use crate::stage_keys::StageKeys;

/// Makes [`StageSection`] and everything that lists stages from one table of variants, each with
/// the field of [`Recipe`] that holds its section. The field's name is the stage's name.
macro_rules! stages {
    ($($(#[$doc:meta])* $variant:ident($field:ident: $section:ty),)+) => {
        /// The section of a stage.
        #[derive(Clone, Copy, Debug)]
        pub enum StageSection<'r> {
            $($(#[$doc])* $variant(&'r $section),)+
        }

        impl<'r> StageSection<'r> {
            /// Names of all stages, in the order in which they run.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];

            /// Name of the stage: its section and its directory within a run.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant(_) => stringify!($field),)+
                }
            }

            /// Keys that every stage has.
            pub fn keys(self) -> StageKeys<'r> {
                match self {
                    $(Self::$variant(section) => section.stage_keys(),)+
                }
            }

            pub(crate) fn check(self, diagnostics: &mut Diagnostics) {
                match self {
                    $(Self::$variant(section) => section.check(self.name(), diagnostics),)+
                }
            }
        }

        impl Recipe {
            /// Stages of this recipe, in the order in which they run.
            pub fn stages(&self) -> Vec<StageSection<'_>> {
                let stages = [$(self.$field.as_ref().map(StageSection::$variant)),+];
                stages.into_iter().flatten().collect()
            }
        }
    };
}

stages! {
    /// Pretraining on documents.
    Pretrain(pretrain: PretrainSection),
    /// Supervised fine-tuning on chats.
    Sft(sft: SftSection),
    /// Reward model on pairs.
    Reward(reward: RewardSection),
    /// Preference optimization on pairs.
    Dpo(dpo: DpoSection),
    /// Policy optimization against a reward model.
    Ppo(ppo: PpoSection),
}

impl StageSection<'_> {
    /// All stages as a message lists them: `[pretrain], [sft] or [reward]`.
    pub fn listed() -> String {
        let names: Vec<String> = Self::NAMES.iter().map(|name| format!("[{name}]")).collect();
        match names.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::StageSection;
    use crate::schema_tree;

    #[test]
    fn every_section_that_trains_is_a_stage() {
        let keys = &schema_tree::recipe().keys;
        let trains = |key: &schema_tree::Key| match &key.node {
            schema_tree::Node::Table(table) => table.key("optimizer").is_some(),
            _ => false,
        };
        let names: Vec<&str> =
            keys.iter().filter(|key| trains(key)).map(|key| key.name.as_str()).collect();
        assert_eq!(names, StageSection::NAMES);
    }
}
