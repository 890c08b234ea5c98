//! The conversations of a file, row by row, for scoring texts that no run trains on.
//!
//! It deliberately tokenises nothing and remembers nothing; rows are read as a stage reads them.

use recipe::SampleKind;
use tokenizer::Message;

use crate::error::{Error, Result};
use crate::place::Place;
use crate::reading::{SourceRows, decide_shape, make};
use crate::rows::Shape;
use crate::source::BytesRead;
use crate::spec::SourceSpec;

/// The conversations of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversations {
    /// Where the row stands.
    pub place: Place,
    /// One chat or several; of a pair the chosen one and the rejected one.
    pub chats: Vec<Vec<Message>>,
}

/// The rows of a source as conversations, in file order: pairs or prompts where they are wanted, else chats.
pub fn conversations(
    spec: &SourceSpec,
    wanted: SampleKind,
) -> Result<impl Iterator<Item = Result<Conversations>> + use<>> {
    let no_rows = || Error::NoRows { source_path: spec.path.clone() };
    let shape = decide_shape(spec, wanted)?.ok_or_else(no_rows)?;
    if matches!(shape, Shape::Pool(_)) {
        let problem = "`pairs` draws pairs by a run's seed: they are no rows of the file".into();
        return Err(Error::BadSource { source_path: spec.path.clone(), problem });
    }
    let rows = SourceRows::open(spec, &shape, BytesRead::default());
    Ok(rows.map(move |row| {
        let made = make(row, |row| match wanted {
            SampleKind::Pairs => shape.pair_of(row).map(Vec::from),
            SampleKind::Prompts => shape.prompt_of(row).map(|messages| vec![messages]),
            SampleKind::Documents | SampleKind::Chats => shape
                .chats_of(row)
                .map(|chats| chats.into_iter().map(|chat| chat.messages).collect()),
        });
        made.map(|(chats, place)| Conversations { place, chats })
    }))
}
