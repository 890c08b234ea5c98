//! The conversations of a file, row by row, for scoring texts that no run trains on.
//!
//! It deliberately tokenises nothing and remembers nothing; rows are read as a stage reads them.

use tokenizer::Message;

use crate::error::{Error, Result};
use crate::place::Place;
use crate::rows::Wanted;
use crate::source::{BytesRead, read_all};
use crate::spec::SourceSpec;
use crate::texts::decide_shape;

/// The conversations of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversations {
    /// Where the row stands.
    pub place: Place,
    /// One chat or several; of a pair the chosen one and the rejected one.
    pub chats: Vec<Vec<Message>>,
}

/// The rows of a source as conversations, in file order: pairs where pairs are wanted, else chats.
pub fn conversations(
    spec: &SourceSpec,
    wanted: Wanted,
) -> Result<impl Iterator<Item = Result<Conversations>> + use<>> {
    let no_rows = || Error::NoRows { source_path: spec.path.clone() };
    let shape = decide_shape(spec, wanted)?.ok_or_else(no_rows)?;
    let limit = usize::try_from(spec.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let files = spec.files.clone();
    let rows = read_all(files, spec.format, shape.needed(), BytesRead::default()).take(limit);
    Ok(rows.map(move |row| {
        let row = row?;
        let chats = if wanted == Wanted::Pairs {
            shape.pair_of(&row).map(Vec::from)
        } else {
            shape.chats_of(&row).map(|chats| chats.into_iter().map(|chat| chat.messages).collect())
        };
        match chats {
            Ok(chats) => Ok(Conversations { place: row.place, chats }),
            Err(problem) => Err(Error::row(row.place, problem)),
        }
    }))
}
