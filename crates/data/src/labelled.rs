//! The single texts that a source's pairs are drawn from, each with its side.
//!
//! It deliberately draws no pairs and splits nothing: the dataset does.

use recipe::SampleKind;

use crate::error::{Error, Result};
use crate::place::Place;
use crate::reading::{SourceRows, decide_shape, make};
use crate::rows::{Pooled, Side};
use crate::source::BytesRead;
use crate::spec::SourceSpec;

/// A text that `pairs` puts on one side.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    /// Where its row stands.
    pub place: Place,
    /// The text.
    pub text: String,
    /// Whether it can be chosen; else it can be rejected.
    pub chosen: bool,
}

/// The texts of a source with `pairs` that fit one side, in file order.
pub fn labelled(spec: &SourceSpec) -> Result<impl Iterator<Item = Result<Labelled>> + use<>> {
    let bad = |problem: &str| Error::BadSource {
        source_path: spec.path.clone(),
        problem: problem.to_owned(),
    };
    if spec.pairs.is_none() {
        return Err(bad("`pairs` says which texts are better, and it is not there"));
    }
    let no_rows = || Error::NoRows { source_path: spec.path.clone() };
    let shape = decide_shape(spec, SampleKind::Pairs)?.ok_or_else(no_rows)?;
    let rows = SourceRows::open(spec, &shape, BytesRead::default());
    Ok(rows.filter_map(move |row| match make(row, |row| shape.pooled(row)) {
        Ok((Pooled::On(side, text), place)) => {
            let (text, chosen) = (text.text, side == Side::Chosen);
            Some(Ok(Labelled { place, text, chosen }))
        }
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    }))
}
