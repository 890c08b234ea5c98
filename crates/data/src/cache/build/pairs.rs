//! Pairs of a source: each row becomes two samples, the chosen text and, behind it, the rejected one.
//!
//! Both are encoded by [`tokenizer::Tokenizer::encode_for_scoring`], which is also what scores a text later. It
//! deliberately keeps every pair whole: cutting and dropping are the dataset's.

use std::sync::mpsc::SyncSender;

use rayon::prelude::*;
use tokenizer::{ChatTemplate, Encoded, Tokenizer};

use super::chats::{marks_of, text_bytes};
use super::{Closed, RowCounter, SampleEnd, Writer, batch_bytes, pipeline};
use crate::cache::PrepareOptions;
use crate::error::{Error, Result};
use crate::place::Place;
use crate::row_problem::RowProblem;
use crate::rows::{Pair, Wanted, chat_hash, text_hash};
use crate::source::{BytesRead, read_all};
use crate::spec::SourceSpec;
use crate::texts::decide_shape;

/// The pair of one row.
struct Unit {
    place: Place,
    pair: Pair,
}

pub(super) fn run(
    spec: &SourceSpec,
    options: &PrepareOptions<'_>,
    template: &ChatTemplate,
    read: &BytesRead,
    writer: &mut Writer,
    on_batch: &mut dyn FnMut(&Writer),
) -> Result<RowCounter> {
    let tokenizer = options.tokenizer;
    // Rows that cannot be read are counted by the reader, those that cannot be encoded here.
    let mut encoding = RowCounter::new(spec, options);
    let counter = RowCounter::new(spec, options);
    let mut counter = pipeline(
        |sender| read_pairs(spec, counter, read, sender),
        |batch: Vec<Unit>| {
            let encoded: Vec<Result<[Encoded; 2]>> =
                batch.par_iter().map(|unit| encode(unit, tokenizer, template)).collect();
            for (unit, encoded) in batch.iter().zip(encoded) {
                if let Some(encoded) = encoding.check(encoded)? {
                    write_pair(unit, &encoded, writer)?;
                }
            }
            on_batch(writer);
            Ok(())
        },
    )?;
    counter.add_bad(encoding, options)?;
    if writer.summary.n_samples == 0 { counter.finish() } else { Ok(counter) }
}

fn read_pairs(
    spec: &SourceSpec,
    mut counter: RowCounter,
    read: &BytesRead,
    sender: &SyncSender<Vec<Unit>>,
) -> Result<RowCounter> {
    let Some(shape) = decide_shape(spec, Wanted::Pairs)? else {
        return counter.without_good_rows(spec);
    };
    let limit = usize::try_from(spec.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let rows = read_all(spec.files.clone(), spec.format, shape.needed(), read.clone());
    let (mut batch, mut n_bytes) = (Vec::new(), 0);
    for row in rows.take(limit) {
        let unit = row.and_then(|row| match shape.pair_of(&row) {
            Ok(pair) => Ok(Unit { pair, place: row.place }),
            Err(problem) => Err(Error::row(row.place, problem)),
        });
        let Some(unit) = counter.accept(unit)? else { continue };
        n_bytes += unit.pair.iter().map(|messages| text_bytes(messages)).sum::<usize>();
        batch.push(unit);
        if n_bytes >= batch_bytes() {
            n_bytes = 0;
            if send(sender, &mut batch).is_err() {
                return Ok(counter);
            }
        }
    }
    // A closed pipe has its reason on the other side.
    let _ = send(sender, &mut batch);
    Ok(counter)
}

fn send(sender: &SyncSender<Vec<Unit>>, batch: &mut Vec<Unit>) -> std::result::Result<(), Closed> {
    if batch.is_empty() {
        return Ok(());
    }
    sender.send(std::mem::take(batch)).map_err(|_| Closed)
}

/// Both texts or neither: a pair is never written by halves.
fn encode(unit: &Unit, tokenizer: &Tokenizer, template: &ChatTemplate) -> Result<[Encoded; 2]> {
    let [chosen, rejected] = &unit.pair;
    let one = |messages| {
        tokenizer.encode_for_scoring(messages, template).map_err(|error| {
            let problem = RowProblem::Encoding { reason: error.to_string(), hint: error.hint() };
            Error::row(unit.place.clone(), problem)
        })
    };
    Ok([one(chosen)?, one(rejected)?])
}

fn write_pair(unit: &Unit, encoded: &[Encoded; 2], writer: &mut Writer) -> Result<()> {
    let hashes = unit.pair.each_ref().map(|messages| chat_hash(messages));
    // A pair is held out as a whole, whatever else its texts stand in.
    let group = text_hash(&format!("{:016x}{:016x}", hashes[0], hashes[1]));
    for ((messages, encoded), hash) in unit.pair.iter().zip(encoded).zip(hashes) {
        writer.write_tokens(&encoded.ids)?;
        writer.write_marks(&marks_of(encoded))?;
        let (place, n_bytes) = (unit.place.clone(), text_bytes(messages) as u64);
        writer.end_sample(&SampleEnd { place, hash, group, n_bytes })?;
    }
    Ok(())
}
