//! Keys that a rule over several keys requires: the length of a stage, its first weights, the tokenizer of a new model.
//!
//! The checks of a whole recipe report them. A recipe that also lacks keys that are always required is no whole recipe yet, and
//! [`report`] finds them in its document, so that all that is missing is reported together.

use toml_edit::{Item, TableLike};

use crate::diagnostics::Diagnostics;
use crate::schema_tree::{self, Node};
use crate::{ModelSection, StageSection};

/// A stage that nothing ends.
pub(crate) fn length(path: &str, diagnostics: &mut Diagnostics) {
    diagnostics.section(
        path,
        &format!("[{path}] needs one of `max_steps`, `epochs` and `max_tokens`"),
        "add one of them",
    );
}

/// A stage without first weights; `last` is the stage before it.
pub(crate) fn start(path: &str, last: Option<&str>, diagnostics: &mut Diagnostics) {
    match last {
        Some(last) => diagnostics.missing(
            path,
            "start",
            &format!("to continue from [{last}]: `start = \"{last}\"`"),
        ),
        None => diagnostics.section(
            path,
            &format!("[{path}] has nothing to start from"),
            "set its `start`, or describe a new model in [model]",
        ),
    }
}

/// A new model without a tokenizer.
pub(crate) fn tokenizer(diagnostics: &mut Diagnostics) {
    diagnostics.section(
        ModelSection::PATH,
        "a new model needs a tokenizer",
        "add [tokenizer] with `train = { kind = \"byte-bpe\", vocab_size = 2048 }` or `load = …`",
    );
}

/// Reports what is missing in a document that is not valid.
pub(crate) fn report(document: &dyn TableLike, diagnostics: &mut Diagnostics) {
    let table = |name: &str| document.get(name).and_then(Item::as_table_like);
    let model = table(ModelSection::PATH);
    let mut last = None;
    for &name in StageSection::NAMES {
        let Some(section) = table(name) else { continue };
        let lacks =
            |keys: &[&str]| keys.iter().all(|key| has_key(name, key) && !section.contains_key(key));
        if lacks(&["max_steps", "epochs", "max_tokens"]) {
            length(name, diagnostics);
        }
        if lacks(&["start"]) && (last.is_some() || model.is_none()) {
            start(name, last, diagnostics);
        }
        last = Some(name);
    }
    let is_new = model.is_some_and(|model| !model.contains_key("start"));
    if is_new && !document.contains_key("tokenizer") {
        tokenizer(diagnostics);
    }
}

/// Whether a section can have a key.
fn has_key(section: &str, key: &str) -> bool {
    match schema_tree::recipe().key(section).map(|section| &section.node) {
        Some(Node::Table(table)) => table.key(key).is_some(),
        Some(
            Node::Choice { .. }
            | Node::List { .. }
            | Node::Map(_)
            | Node::Text(_)
            | Node::Integer { .. }
            | Node::Number(_)
            | Node::Boolean,
        )
        | None => false,
    }
}
