//! Conversations of a source: read on one thread, rendered and tokenized on all cores, written in the order of the file.
//!
//! Each kind of [`Example`] implements reading, encoding and writing. Texts are stored in full; the dataset truncates and
//! drops them.

use std::sync::mpsc::SyncSender;

use rayon::prelude::*;
use tokenizer::{ChatTemplate, Encoded, Message, Role, Tokenizer};

use super::{Closed, RowCounter, Writer, batch_bytes, pipeline};
use recipe::SampleKind;

use crate::cache::store::{LOSS_MASK_BIT, TokenRole};
use crate::cache::{Content, PrepareOptions};
use crate::error::{Error, Result};
use crate::limits;
use crate::location::Location;
use crate::row_problem::RowProblem;
use crate::rows::RowFormat;
use crate::source::{BytesRead, Row};
use crate::source_rows::{SourceRows, convert_row, detect_format};
use crate::spec::SourceSpec;

/// An example built from a row: a chat, a pair, a labelled text or a prompt.
pub(super) trait Example: Sized + Send + Sync {
    /// Kind of sample in a recipe.
    const KIND: SampleKind;
    /// Ids of the example with their roles.
    type Encoded: Send;

    /// Examples of a row. The counter counts rows without any.
    fn from_row(
        row_format: &RowFormat,
        row: &Row,
        counter: &mut RowCounter,
    ) -> std::result::Result<Vec<Self>, RowProblem>;

    /// Location of the row.
    fn location(&self) -> &Location;

    /// Bytes of the texts.
    fn n_bytes(&self) -> usize;

    /// Renders and tokenizes the texts.
    fn encode(
        &self,
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
    ) -> tokenizer::Result<Self::Encoded>;

    /// Checks that the prompts have the same tokens at generation as in training.
    fn check_prompts(
        &self,
        _encoded: &Self::Encoded,
        _tokenizer: &Tokenizer,
        _template: &ChatTemplate,
    ) -> tokenizer::Result<()> {
        Ok(())
    }

    /// Writes the samples.
    fn write(&self, encoded: &Self::Encoded, writer: &mut Writer) -> Result<()>;
}

/// Examples of a source whose prompts are checked.
const CHECKED_EXAMPLES: usize = 5;

/// Builds the columns of one source.
pub(super) fn run<U: Example>(
    spec: &SourceSpec,
    options: &PrepareOptions<'_>,
    template: &ChatTemplate,
    read: &BytesRead,
    writer: &mut Writer,
    on_batch: &mut dyn FnMut(&Writer),
) -> Result<RowCounter> {
    let tokenizer = options.tokenizer;
    // Rows that cannot be read are counted by the reader, rows that cannot be encoded here.
    let mut encoding = RowCounter::new(spec, options);
    let counter = RowCounter::new(spec, options);
    let encode = |example: &U| {
        let encode = || example.encode(tokenizer, template);
        let encoded = fsio::watchdog::located(|| example.location().to_string(), encode);
        encoded.map_err(|error| {
            let problem = RowProblem::Encoding { reason: error.to_string(), hint: error.hint() };
            Error::row(example.location().clone(), problem)
        })
    };
    let mut n_to_check = if options.check_prompts { CHECKED_EXAMPLES } else { 0 };
    let mut counter = pipeline(
        |sender| read_examples(spec, options, counter, read, sender),
        |batch: Vec<U>| {
            let encoded: Vec<Result<U::Encoded>> = batch.par_iter().map(encode).collect();
            for (example, encoded) in batch.iter().zip(encoded) {
                if let Some(encoded) = encoding.check(encoded)? {
                    if n_to_check > 0 {
                        n_to_check -= 1;
                        example.check_prompts(&encoded, tokenizer, template).map_err(|source| {
                            let location = example.location().clone();
                            Error::PromptTokens { location, source: Box::new(source) }
                        })?;
                    }
                    example.write(&encoded, writer)?;
                }
            }
            on_batch(writer);
            Ok(())
        },
    )?;
    counter.add_bad(encoding, options)?;
    if U::KIND == SampleKind::Chats {
        counter.check_empty_answers()?;
    }
    if writer.summary.n_samples == 0 { counter.finish() } else { Ok(counter) }
}

fn read_examples<U: Example>(
    spec: &SourceSpec,
    options: &PrepareOptions<'_>,
    mut counter: RowCounter,
    read: &BytesRead,
    sender: &SyncSender<Vec<U>>,
) -> Result<RowCounter> {
    let Some(mut row_format) = detect_format(spec, U::KIND)? else {
        return counter.without_good_rows(spec);
    };
    if let Content::Chats(_, targets) = options.content {
        row_format.targets = targets;
    }
    let limit = spec.files.options.max_row_bytes.unwrap_or(limits::TEXT_BYTES);
    let mut rows = SourceRows::open(spec, &row_format, read.clone());
    let (mut batch, mut n_bytes) = (Vec::new(), 0);
    for row in rows.by_ref() {
        let examples = convert_row(row, |row| {
            let examples = U::from_row(&row_format, row, &mut counter)?;
            if examples.iter().any(|example| example.n_bytes() > limit) {
                return Err(RowProblem::TooLong { limit: limit as u64 });
            }
            Ok(examples)
        });
        let Some((examples, _)) = counter.accept(examples)? else { continue };
        let of_example = |example: &U| example.n_bytes() + size_of::<U>();
        n_bytes += examples.iter().map(of_example).sum::<usize>();
        batch.extend(examples);
        if n_bytes >= batch_bytes() {
            n_bytes = 0;
            if send(sender, &mut batch).is_err() {
                return Ok(counter);
            }
        }
    }
    counter.add_filtered(rows.n_filtered());
    // If the channel is closed, the other side reports the error.
    let _ = send(sender, &mut batch);
    Ok(counter)
}

fn send<U>(sender: &SyncSender<Vec<U>>, batch: &mut Vec<U>) -> std::result::Result<(), Closed> {
    if batch.is_empty() {
        return Ok(());
    }
    sender.send(std::mem::take(batch)).map_err(|_| Closed)
}

/// Bytes of a conversation's texts.
pub(super) fn text_bytes(messages: &[Message]) -> usize {
    messages.iter().map(|message| message.content.len()).sum()
}

/// Role byte of each token, with the loss mask bit.
pub(super) fn role_bytes(encoded: &Encoded) -> Vec<u8> {
    let byte = |(role, target): (&Option<Role>, &bool)| {
        role_of(*role) as u8 | if *target { LOSS_MASK_BIT } else { 0 }
    };
    encoded.roles.iter().zip(&encoded.loss_mask).map(byte).collect()
}

fn role_of(role: Option<Role>) -> TokenRole {
    match role {
        None => TokenRole::Template,
        Some(Role::System) => TokenRole::System,
        Some(Role::User) => TokenRole::User,
        Some(Role::Assistant) => TokenRole::Assistant,
        Some(Role::Tool) => TokenRole::Tool,
    }
}
