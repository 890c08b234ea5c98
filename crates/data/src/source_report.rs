//! Files, layout and columns of a source, and the columns that are not read, for `temper plan` and `temper data inspect`.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use recipe::{ColumnValues, SampleKind};
use tokenizer::{ChatTemplate, Message};

use crate::error::Result;
use crate::rows::RowFormat;
use crate::source::{BytesRead, Row, read_all};
use crate::source_rows::detect_format;
use crate::spec::SourceSpec;

/// Rows whose columns are looked at; columns of a JSON file may differ from row to row.
const ROWS: usize = 1_000;

/// Files, layout and columns of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceReport {
    /// Path as written in the recipe.
    pub path: String,
    /// Files in reading order.
    pub files: Vec<PathBuf>,
    /// Layout of the rows, such as `messages`.
    pub layout: &'static str,
    /// Columns that are read; empty if the whole row is.
    pub read: Vec<String>,
    /// Columns of the first rows that are not read.
    pub unread: Vec<String>,
    /// Fields of messages in the first rows that are not read: those that the recipe ignores, and those that the chat
    /// template, where it is known, does not write.
    pub unread_fields: Vec<String>,
}

/// Describes a source by its first rows. `None` if it has none.
///
/// `template` is the chat template of the stage. Documents have none, and neither has a file outside of a recipe.
///
/// # Errors
/// Those of opening the files and of detecting the layout; bad rows are passed over here.
pub fn describe_source(
    spec: &SourceSpec,
    kind: SampleKind,
    template: Option<&ChatTemplate>,
) -> Result<Option<SourceReport>> {
    let Some(format) = detect_format(spec, kind)? else { return Ok(None) };
    let filter = spec.filter.iter().flat_map(ColumnValues::entries);
    let read = format.columns().map(|mut columns| {
        columns.extend(filter.map(|(column, _)| column.to_owned()));
        columns.sort_unstable();
        columns.dedup();
        columns
    });
    let mut names = BTreeSet::new();
    let (mut fields, mut left_out) = (BTreeSet::new(), BTreeSet::new());
    let rows = read_all(spec.files.clone(), spec.format, None, BytesRead::default());
    for row in rows.take(ROWS).filter_map(Result::ok) {
        names.extend(row.columns.keys().cloned());
        format.add_left_out_fields(&row, &mut left_out);
        for message in messages(&format, &row, kind) {
            fields.extend(message.fields.keys().cloned());
        }
    }
    let known: HashSet<&String> = read.iter().flatten().collect();
    let unread = match &read {
        Some(_) => names.iter().filter(|name| !known.contains(name)).cloned().collect(),
        None => Vec::new(),
    };
    if let Some(template) = template {
        left_out.extend(fields.into_iter().filter(|field| template.field_name(field).is_none()));
    }
    Ok(Some(SourceReport {
        path: spec.path.clone(),
        files: spec.files.to_vec(),
        layout: format.name(),
        unread,
        read: read.unwrap_or_default(),
        unread_fields: left_out.into_iter().collect(),
    }))
}

/// Messages of a row; none of a bad row or of a document.
fn messages(format: &RowFormat, row: &Row, kind: SampleKind) -> Vec<Message> {
    let dialogues = match kind {
        SampleKind::Documents => return Vec::new(),
        SampleKind::Chats => {
            format.chats_of(row).map(|chats| chats.into_iter().map(|chat| chat.dialogue).collect())
        }
        SampleKind::Pairs => format.pair_of(row).map(Vec::from),
        SampleKind::Completions => format
            .completions_of(row)
            .map(|completions| completions.into_iter().map(|(_, dialogue)| dialogue).collect()),
        SampleKind::Prompts => format.prompt_of(row).map(|dialogue| vec![dialogue]),
    };
    dialogues.unwrap_or_default().into_iter().flat_map(|dialogue| dialogue.messages).collect()
}
