//! The conversations of a file, row by row, for scoring texts that no run trains on.
//!
//! It deliberately tokenises nothing and remembers nothing; rows are read as a stage reads them.

use recipe::SampleKind;
use tokenizer::Message;

use crate::error::{Error, Result};
use crate::location::Location;
use crate::rows::RowFormat;
use crate::source::BytesRead;
use crate::source_rows::{SourceRows, convert_row, detect_format};
use crate::spec::SourceSpec;

/// The conversations of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversations {
    /// Where the row stands.
    pub location: Location,
    /// One chat or several; of a pair the chosen one and the rejected one.
    pub chats: Vec<Vec<Message>>,
}

/// The rows of a source as conversations, in file order: pairs or prompts where they are wanted, else chats.
pub fn conversations(
    spec: &SourceSpec,
    kind: SampleKind,
) -> Result<impl Iterator<Item = Result<Conversations>> + use<>> {
    let no_rows = || Error::NoRows { source_path: spec.path.clone() };
    let row_format = detect_format(spec, kind)?.ok_or_else(no_rows)?;
    if matches!(row_format, RowFormat::Pool(_)) {
        let problem = "`pairs` draws pairs by a run's seed: they are no rows of the file".into();
        return Err(Error::BadSource { source_path: spec.path.clone(), problem });
    }
    let rows = SourceRows::open(spec, &row_format, BytesRead::default());
    Ok(rows.map(move |row| {
        let made = convert_row(row, |row| match kind {
            SampleKind::Pairs => row_format.pair_of(row).map(Vec::from),
            SampleKind::Prompts => row_format.prompt_of(row).map(|messages| vec![messages]),
            SampleKind::Documents | SampleKind::Chats => row_format
                .chats_of(row)
                .map(|chats| chats.into_iter().map(|chat| chat.messages).collect()),
        });
        made.map(|(chats, location)| Conversations { location, chats })
    }))
}
