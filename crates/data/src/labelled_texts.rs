//! Texts that pairs are drawn from, with their labels. Pairs themselves are drawn by the dataset.

use recipe::SampleKind;

use crate::error::{Error, Result};
use crate::location::Location;
use crate::rows::{Label, PoolEntry};
use crate::source::BytesRead;
use crate::source_rows::{SourceRows, convert_row, detect_format, why_no_rows};
use crate::spec::SourceSpec;

/// A text that matches one label of `pairs`.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledText {
    /// Location of its row.
    pub location: Location,
    /// The text.
    pub text: String,
    /// Whether it matches `chosen`; otherwise it matches `rejected`.
    pub chosen: bool,
}

/// Texts of a source with `pairs` that match one label, in file order.
pub fn labelled_texts(
    spec: &SourceSpec,
) -> Result<impl Iterator<Item = Result<LabelledText>> + use<>> {
    let bad = |problem: &str| Error::BadSource {
        source_path: spec.path.clone(),
        problem: problem.to_owned(),
    };
    if spec.pairs.is_none() {
        return Err(bad("it has no `pairs`, which decides the label of each text"));
    }
    let row_format = detect_format(spec, SampleKind::Pairs)?.ok_or_else(|| why_no_rows(spec))?;
    let rows = SourceRows::open(spec, &row_format, BytesRead::default());
    Ok(rows.filter_map(move |row| match convert_row(row, |row| row_format.pool_entry(row)) {
        Ok((PoolEntry::Text(label, text), location)) => {
            let (text, chosen) = (text.text, label == Label::Chosen);
            Some(Ok(LabelledText { location, text, chosen }))
        }
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    }))
}
