//! `temper data inspect FILE`: the rows of a data file, and the stages that can train on them.

use std::path::Path;

use data::{BytesRead, SampleKind, SourceFiles, SourceReport, SourceSpec};
use hub_local::Need;
use recipe::Format;
use serde_json::{Value, json};

use super::{plan as plan_command, print};
use crate::failure::{Failure, Result};
use crate::render::table::{counted, thousands};

/// Rows that are counted; more are not read.
const COUNTED: usize = 100_000;

/// Bytes of a text file that are shown.
const SHOWN_TEXT_BYTES: usize = 500;

/// Stages by the samples that they make of a row, with the word of `temper init`. Of the stages that can read the rows, the
/// first is suggested.
const READERS: [(SampleKind, &str, &str); 5] = [
    (SampleKind::Pairs, "[reward], [dpo]", "dpo"),
    (SampleKind::Completions, "[kto]", "kto"),
    (SampleKind::Chats, "[sft], [distill]", "sft"),
    (SampleKind::Prompts, "[ppo], [grpo]", "grpo"),
    (SampleKind::Documents, "[pretrain]", "pretrain"),
];

/// Prints one row of a data file with its columns. Rows count from 1, as in error messages.
pub(super) fn show_row(path: &Path, number: u64) -> Result<()> {
    let skipped = usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
    let path = &plan::local_copy(path, Need::Data)?;
    let mut rows = data::read_rows(path, None, None, &BytesRead::default())?;
    let Some(row) = rows.nth(skipped) else {
        return Err(Failure::input(
            format!("{} has no row {number}", path.display()),
            "rows are numbered from 1",
        ));
    };
    print(&format!("{:#}\n", Value::Object(row?.columns)))
}

/// Whether a path names data and not a recipe.
pub(super) fn is_data(path: &Path) -> bool {
    let is_recipe = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("toml"));
    !is_recipe && (path.exists() || path.to_string_lossy().starts_with("hf:"))
}

/// Prints the first `n` rows of data, the stages that can read it, and how.
pub(super) fn show_file(path: &Path, n: usize, json: bool) -> Result<()> {
    let spec = SourceSpec { files: files(path)?, ..SourceSpec::file(path.to_path_buf()) };
    if spec.files.iter().all(|file| data::format_of(file) == Some(Format::Text)) {
        return show_texts(path, &spec, n, json);
    }
    let (mut first, mut n_rows) = (Vec::new(), 0);
    'files: for file in &spec.files {
        for row in data::read_rows(file, None, None, &BytesRead::default())? {
            let columns = Value::Object(row?.columns);
            if first.len() < n {
                first.push(columns);
            } else if json {
                break 'files;
            }
            n_rows += 1;
            if n_rows == COUNTED {
                break 'files;
            }
        }
    }
    if json {
        return first.iter().try_for_each(|row| print(&format!("{row}\n")));
    }
    let name = path.display();
    let n_files = counted(spec.files.len() as u64, "file");
    let n_rows = match n_rows {
        COUNTED => format!("{} or more rows", thousands(COUNTED as u64)),
        n_rows => counted(n_rows as u64, "row"),
    };
    print(&format!("{name}: {n_rows} in {n_files}\n"))?;
    let next = show_readers(&spec, &first)?;
    for row in &first {
        print(&format!("{row:#}\n"))?;
    }
    match next {
        Some(stage) => print(&format!("next    temper init {stage} --model MODEL --data {name}\n")),
        None => Ok(()),
    }
}

/// Prints the start of the first `n` text files, each of which is one document. All are opened before anything is printed,
/// because training refuses a source with an empty one.
fn show_texts(path: &Path, spec: &SourceSpec, n: usize, json: bool) -> Result<()> {
    let name = path.display();
    let mut first = Vec::new();
    for file in &spec.files {
        let (text, is_whole) = data::text_start(file, SHOWN_TEXT_BYTES)?;
        if first.len() < n {
            first.push(json!({ "text": if is_whole { text } else { format!("{text}…") } }));
        }
    }
    if !json {
        let n_files = spec.files.len() as u64;
        let (documents, files) = (counted(n_files, "document"), counted(n_files, "file"));
        print(&format!("{name}: {documents} in {files}\n  [pretrain]: the text of each file\n"))?;
    }
    for row in first {
        print(&if json { format!("{row}\n") } else { format!("{row:#}\n") })?;
    }
    if json {
        return Ok(());
    }
    print(&format!("next    temper init pretrain --model MODEL --data {name}\n"))
}

fn files(path: &Path) -> Result<SourceFiles> {
    Ok(data::expand(&plan::local_copy(path, Need::Data)?, None, None)?)
}

/// Whether the first rows have every column that labelled answers are read from. The label's column is expected by name.
fn has_labels(report: &SourceReport, first: &[Value]) -> bool {
    report.read.iter().all(|column| first.iter().any(|row| row.get(column).is_some()))
}

/// Prints how each kind of stage reads the rows. Returns the first one that can.
fn show_readers(spec: &SourceSpec, first: &[Value]) -> Result<Option<&'static str>> {
    let mut next = None;
    let mut refusal = None;
    for (kind, sections, stage) in READERS {
        match data::describe_source(spec, kind, None) {
            Ok(Some(report)) if kind == SampleKind::Completions && !has_labels(&report, first) => {}
            Ok(Some(report)) => {
                let how = plan_command::source(&report);
                let how = how.split_once(": ").map_or(how.as_str(), |(_, how)| how);
                print(&format!("  {sections}: {how}\n"))?;
                next = next.or(Some(stage));
            }
            Ok(None) => {}
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    match refusal {
        Some(refusal) if next.is_none() => Err(refusal.into()),
        _ => Ok(next),
    }
}
