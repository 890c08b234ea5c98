//! The training and the validation side of a dataset, laid out in rows.
//!
//! It deliberately decides nothing: options say how to split, order and pack.

use recipe::SplitBy;

use crate::cache::{Prepared, SpecialIds, Store};
use crate::dataset::documents::{DocumentRows, Documents};
use crate::dataset::mixture::Order;
use crate::dataset::split::{self, Holdout, Part, Sides};
use crate::dataset::stream::{Stream, StreamRows};
use crate::dataset::{Layout, RunOptions, SourcePart};
use crate::error::Result;

pub(super) fn source_parts(prepared: &Prepared) -> Vec<SourcePart> {
    let mut first_sample = 0;
    let parts = prepared.sources.iter().map(|source| {
        let part = SourcePart { store: source.store.clone(), weight: source.weight, first_sample };
        first_sample += source.store.n_samples();
        part
    });
    parts.collect()
}

pub(super) fn shuffled(options: &RunOptions) -> Order {
    Order::Shuffled { seed: options.seed, stage: options.stage.clone() }
}

/// Whole samples on either side.
pub(super) fn sample_sides(sources: &[SourcePart], holdout: Option<Holdout>) -> Result<Vec<Sides>> {
    let stores: Vec<&Store> = sources.iter().map(|source| &source.store).collect();
    match holdout.filter(|holdout| holdout.fraction > 0.0) {
        None => Ok(split::no_split(&stores)),
        Some(Holdout { fraction, by: SplitBy::Content }) => split::by_content(&stores, fraction),
        Some(Holdout { fraction, by: SplitBy::Position }) => split::by_position(&stores, fraction),
    }
}

/// As `sample_sides`; but one prompt that is all there is stands on both sides, for what is measured on it are answers.
pub(super) fn prompt_sides(sources: &[SourcePart], holdout: Option<Holdout>) -> Result<Vec<Sides>> {
    let groups = |source: &SourcePart| {
        let store = source.store.clone();
        (0..store.n_samples()).map(move |sample| store.group(sample))
    };
    let mut all = sources.iter().flat_map(groups);
    let first = all.next();
    if holdout.is_some() && all.all(|group| Some(group) == first) {
        let whole = |source: &SourcePart| Part::Range(0..source.store.n_samples());
        return Ok(sources
            .iter()
            .map(|source| Sides { train: whole(source), eval: whole(source) })
            .collect());
    }
    sample_sides(sources, holdout)
}

type SidesOfRun = (Box<dyn Layout>, Option<Box<dyn Layout>>);

pub(super) fn document_sides(
    sources: &[SourcePart],
    options: &RunOptions,
    ids: &SpecialIds,
    order: Order,
) -> Result<SidesOfRun> {
    let n_prefix = ids.prefix.len() as u64;
    let (train, eval): (Vec<_>, Vec<_>) = match options.holdout {
        Some(Holdout { fraction, by: SplitBy::Position }) => sources
            .iter()
            .map(|source| Documents::split_by_position(source, n_prefix, fraction))
            .unzip(),
        holdout => {
            let sides = sample_sides(sources, holdout)?;
            let pair = |(source, side): (&SourcePart, Sides)| {
                let whole = |part| Documents::whole(source.clone(), part);
                (whole(side.train), whole(side.eval))
            };
            sources.iter().zip(sides).map(pair).unzip()
        }
    };
    let rows = |documents, order| {
        DocumentRows::new(documents, order, options.sequence_length, ids)
            .map(|rows| Box::new(rows) as Box<dyn Layout>)
    };
    Ok((rows(train, order)?, Some(rows(eval, Order::Fixed)?)))
}

pub(super) fn stream_sides(
    sources: &[SourcePart],
    options: &RunOptions,
    ids: &SpecialIds,
    order: Order,
) -> Result<SidesOfRun> {
    let (train, eval): (Vec<Stream>, Vec<Stream>) = match options.holdout {
        Some(Holdout { fraction, by: SplitBy::Position }) => {
            let whole = sources.iter().map(|source| {
                let all = Part::Range(0..source.store.n_samples());
                let stream = Stream::new(source.clone(), all, ids)?;
                Ok(stream.split_by_position(fraction))
            });
            whole.collect::<Result<Vec<_>>>()?.into_iter().unzip()
        }
        holdout => {
            let sides = sample_sides(sources, holdout)?;
            let pairs = sources.iter().zip(sides).map(|(source, side)| {
                let train = Stream::new(source.clone(), side.train, ids)?;
                Ok((train, Stream::new(source.clone(), side.eval, ids)?))
            });
            pairs.collect::<Result<Vec<_>>>()?.into_iter().unzip()
        }
    };
    let rows = |streams, order| {
        Box::new(StreamRows::new(streams, order, options.sequence_length)) as Box<dyn Layout>
    };
    Ok((rows(train, order), Some(rows(eval, Order::Fixed))))
}
