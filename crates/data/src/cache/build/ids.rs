//! Rows of token ids: checked against the vocabulary and written as they are.

use tokenizer::Tokenizer;

use super::{RowCounter, SampleEnd, Writer};
use crate::cache::store::{LOSS_MASK_BIT, TokenRole};
use crate::cache::{Content, PrepareOptions};
use crate::error::Result;
use crate::row_problem::RowProblem;
use crate::rows::{IdRow, RowFormat, short_hash};
use crate::source::BytesRead;
use crate::source_rows::{SourceRows, convert_row};
use crate::spec::SourceSpec;

/// Rows between two progress reports.
const ROWS_PER_REPORT: u64 = 4096;

pub(super) fn run(
    spec: &SourceSpec,
    options: &PrepareOptions<'_>,
    row_format: &RowFormat,
    read: &BytesRead,
    writer: &mut Writer,
    on_batch: &mut dyn FnMut(&Writer),
) -> Result<RowCounter> {
    let mut counter = RowCounter::new(spec, options);
    let tokenizer = options.tokenizer;
    let is_document = matches!(options.content, Content::Documents);
    let mut rows = SourceRows::open(spec, row_format, read.clone());
    for row in rows.by_ref() {
        let row = convert_row(row, |row| {
            let mut ids = row_format.ids_of(row)?;
            check(&ids, tokenizer)?;
            if is_document {
                document(&mut ids, tokenizer)?;
            }
            Ok(ids)
        });
        let Some((IdRow { ids, loss_mask }, location)) = counter.accept(row)? else { continue };
        if ids.is_empty() {
            writer.summary.n_empty += 1;
            continue;
        }
        writer.write_tokens(&ids)?;
        if !is_document {
            let targets = loss_mask.unwrap_or_else(|| vec![true; ids.len()]);
            let role = |target: bool| {
                if target {
                    TokenRole::Assistant as u8 | LOSS_MASK_BIT
                } else {
                    TokenRole::Template as u8
                }
            };
            writer.write_roles(&targets.into_iter().map(role).collect::<Vec<u8>>())?;
        }
        let mut hasher = fsio::Sha256::new();
        for id in &ids {
            hasher.update(id.to_le_bytes());
        }
        let hash = short_hash(hasher);
        let n_bytes = tokenizer.decode(&ids, true).len() as u64;
        writer.end_sample(&SampleEnd { location, hash, group: hash, n_bytes })?;
        if writer.summary.n_samples.is_multiple_of(ROWS_PER_REPORT) {
            on_batch(writer);
        }
    }
    counter.add_filtered(rows.n_filtered());
    counter.finish()
}

/// Checks that every id is in the vocabulary.
fn check(row: &IdRow, tokenizer: &Tokenizer) -> std::result::Result<(), RowProblem> {
    let n_tokens = tokenizer.vocab_size();
    match row.ids.iter().position(|id| *id as usize >= n_tokens) {
        None => Ok(()),
        Some(at) => {
            let id = row.ids.get(at).copied().unwrap_or_default().into();
            Err(RowProblem::TokenId { at, id, n_tokens: Some(n_tokens) })
        }
    }
}

/// Removes the tokens that the dataset adds to every document, and refuses masked tokens.
fn document(row: &mut IdRow, tokenizer: &Tokenizer) -> std::result::Result<(), RowProblem> {
    if let Some(at) = row.loss_mask.as_ref().and_then(|mask| mask.iter().position(|m| !m)) {
        return Err(RowProblem::MaskedDocument { at });
    }
    if row.ids.last().copied() == tokenizer.eos() {
        row.ids.pop();
    }
    let prefix = tokenizer.prefix_ids();
    if !prefix.is_empty() && row.ids.starts_with(&prefix) {
        row.ids.drain(..prefix.len());
    }
    Ok(())
}
