//! Conversations of a file, row by row, for scoring texts outside of a run. Rows are read as a stage reads them.

use recipe::SampleKind;

use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::location::Location;
use crate::source::BytesRead;
use crate::source_rows::{SourceRows, convert_row, detect_format, why_no_rows};
use crate::spec::SourceSpec;

/// Conversations of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversations {
    /// Location of the row.
    pub location: Location,
    /// One chat or several; the chosen and the rejected one if the row is a pair.
    pub chats: Vec<Dialogue>,
}

/// Rows of a source as conversations of a kind, in file order. Documents are read as chats.
pub fn conversations(
    spec: &SourceSpec,
    kind: SampleKind,
) -> Result<impl Iterator<Item = Result<Conversations>> + use<>> {
    let row_format = detect_format(spec, kind)?.ok_or_else(|| why_no_rows(spec))?;
    if row_format.is_pool() {
        let problem =
            "its `pairs` are drawn with the seed of a run, so they are not rows of the file".into();
        return Err(Error::BadSource { source_path: spec.path.clone(), problem });
    }
    let rows = SourceRows::open(spec, &row_format, BytesRead::default());
    Ok(rows.map(move |row| {
        let made = convert_row(row, |row| match kind {
            SampleKind::Pairs => row_format.pair_of(row).map(Vec::from),
            SampleKind::Completions => row_format
                .completions_of(row)
                .map(|completions| completions.into_iter().map(|(_, dialogue)| dialogue).collect()),
            SampleKind::Prompts => row_format.prompt_of(row).map(|messages| vec![messages]),
            SampleKind::Documents | SampleKind::Chats => row_format
                .chats_of(row)
                .map(|chats| chats.into_iter().map(|chat| chat.dialogue).collect()),
        });
        made.map(|(chats, location)| Conversations { location, chats })
    }))
}
