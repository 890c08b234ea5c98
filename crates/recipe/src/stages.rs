//! The table of a recipe's stages. The crate root has the table itself.

use crate::StageSection;

/// Defines `StageSection` and everything that lists stages from one table of variants, each with
/// the field of `Recipe` that has its section. The field's name is the stage's name. The order of
/// the table is the order in which stages run.
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
            pub fn keys(self) -> $crate::StageKeys<'r> {
                match self {
                    $(Self::$variant(section) => section.stage_keys(),)+
                }
            }

            pub(crate) fn check(self, diagnostics: &mut $crate::diagnostics::Diagnostics) {
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

pub(crate) use stages;

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
    use crate::{StageSection, schema_tree};

    #[test]
    fn every_section_that_trains_is_a_stage() {
        let keys = &schema_tree::recipe().keys;
        let trains = |key: &schema_tree::Key| match &key.node {
            schema_tree::Node::Table(table) => table.key("optimizer").is_some(),
            schema_tree::Node::Choice { .. }
            | schema_tree::Node::List { .. }
            | schema_tree::Node::Map(_)
            | schema_tree::Node::Text(_)
            | schema_tree::Node::Integer { .. }
            | schema_tree::Node::Number(_)
            | schema_tree::Node::Boolean => false,
        };
        let names: Vec<&str> =
            keys.iter().filter(|key| trains(key)).map(|key| key.name.as_str()).collect();
        assert_eq!(names, StageSection::NAMES);
    }
}
