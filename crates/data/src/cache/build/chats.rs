//! Chats of a source: rendered and tokenised one by one, over all cores.
//!
//! It deliberately keeps every chat whole: cutting to a row's length is the dataset's.

use std::sync::mpsc::SyncSender;

use rayon::prelude::*;
use tokenizer::{ChatTemplate, Encoded, Message, Role, Tokenizer};

use super::{Closed, RowCounter, SampleEnd, Writer, batch_bytes, pipeline};
use crate::cache::PrepareOptions;
use crate::cache::store::{TARGET_BIT, TokenRole};
use crate::error::{Error, Result};
use crate::place::Place;
use crate::row_problem::RowProblem;
use crate::rows::{Wanted, chat_hash};
use crate::source::{BytesRead, read_all};
use crate::spec::SourceSpec;
use crate::texts::decide_shape;

/// One chat, or the reason why its row gives none.
struct Unit {
    place: Place,
    group: Option<u64>,
    messages: Vec<Message>,
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
        |sender| read_chats(spec, counter, read, sender),
        |batch: Vec<Unit>| {
            let encoded: Vec<Result<Encoded>> =
                batch.par_iter().map(|unit| encode(unit, tokenizer, template)).collect();
            for (unit, encoded) in batch.iter().zip(encoded) {
                if let Some(encoded) = encoding.check(encoded)? {
                    write_chat(unit, &encoded, writer)?;
                }
            }
            on_batch(writer);
            Ok(())
        },
    )?;
    counter.add_bad(encoding, options)?;
    if writer.summary.n_samples == 0 { counter.finish() } else { Ok(counter) }
}

fn read_chats(
    spec: &SourceSpec,
    mut counter: RowCounter,
    read: &BytesRead,
    sender: &SyncSender<Vec<Unit>>,
) -> Result<RowCounter> {
    let Some(shape) = decide_shape(spec, Wanted::Chats)? else {
        return counter.without_good_rows(spec);
    };
    let limit = usize::try_from(spec.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let rows = read_all(spec.files.clone(), spec.format, shape.needed(), read.clone());
    let (mut batch, mut n_bytes) = (Vec::new(), 0);
    for row in rows.take(limit) {
        let chats = row.and_then(|row| match shape.chats_of(&row) {
            Ok(chats) => Ok((chats, row.place)),
            Err(problem) => Err(Error::row(row.place, problem)),
        });
        let Some((chats, place)) = counter.accept(chats)? else { continue };
        for chat in chats {
            n_bytes += text_bytes(&chat.messages);
            let place = place.clone();
            batch.push(Unit { place, group: chat.group, messages: chat.messages });
        }
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

pub(super) fn text_bytes(messages: &[Message]) -> usize {
    messages.iter().map(|message| message.content.len()).sum()
}

fn encode(unit: &Unit, tokenizer: &Tokenizer, template: &ChatTemplate) -> Result<Encoded> {
    tokenizer.encode_chat(&unit.messages, template).map_err(|error| {
        let problem = RowProblem::Encoding { reason: error.to_string(), hint: error.hint() };
        Error::row(unit.place.clone(), problem)
    })
}

fn write_chat(unit: &Unit, encoded: &Encoded, writer: &mut Writer) -> Result<()> {
    writer.write_tokens(&encoded.ids)?;
    writer.write_marks(&marks_of(encoded))?;
    let hash = chat_hash(&unit.messages);
    writer.end_sample(&SampleEnd {
        place: unit.place.clone(),
        hash,
        group: unit.group.unwrap_or(hash),
        n_bytes: text_bytes(&unit.messages) as u64,
    })
}

/// Each token's role, and whether it is a target.
pub(super) fn marks_of(encoded: &Encoded) -> Vec<u8> {
    let mark = |(role, target): (&Option<Role>, &bool)| {
        role_of(*role) as u8 | if *target { TARGET_BIT } else { 0 }
    };
    encoded.roles.iter().zip(&encoded.loss_mask).map(mark).collect()
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
