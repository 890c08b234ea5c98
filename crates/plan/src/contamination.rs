//! Rows of the tasks of a stage that occur in its training data. The result is cached, because it reads all texts again.

use data::SourceSpec;
use recipe::SampleKind;
use serde_json::json;
use tasks::{Contamination, Overlap, RowTexts};

use crate::eval_tasks::EvalTask;
use crate::{Paths, Result};

/// Directory of cached results within the cache of all runs.
const DIR: &str = "contamination";
/// Format of cached results.
const VERSION: u32 = 1;
/// Maximum size of a cached result.
const MAX_BYTES: u64 = 1 << 20;

/// Overlaps of the tasks with the texts of the sources.
pub(crate) fn overlaps(
    tasks: &[EvalTask],
    specs: &[SourceSpec],
    kind: SampleKind,
    paths: &Paths,
) -> Result<Vec<Overlap>> {
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let of_tasks: Vec<(&str, &[RowTexts])> =
        tasks.iter().map(|task| (task.task.name(), task.texts.as_slice())).collect();
    let key = json!([VERSION, data::texts_key(specs, kind, &paths.cache_dir)?, key_of(&of_tasks)]);
    let name = format!("{}.json", fsio::sha256_hex(key.to_string().as_bytes()));
    let dir = paths.cache_dir.join(DIR);
    // A damaged file is computed and written again.
    let cached = fsio::read_text_capped(dir.join(&name), MAX_BYTES);
    if let Some(overlaps) = cached.ok().and_then(|text| serde_json::from_str(&text).ok()) {
        return Ok(overlaps);
    }
    let mut contamination = Contamination::default();
    for (name, rows) in of_tasks {
        contamination.add_task(name, rows);
    }
    data::located_texts(specs, kind, &mut |place, texts| contamination.compare(place, texts))?;
    let overlaps = contamination.into_reports();
    fsio::create_dir_all(&dir)?;
    fsio::write_atomic(dir.join(&name), json!(overlaps).to_string())?;
    Ok(overlaps)
}

fn key_of(tasks: &[(&str, &[RowTexts])]) -> Vec<String> {
    let of = |(name, rows): &(&str, &[RowTexts])| {
        let rows: Vec<_> = rows.iter().map(|row| json!([row.place, row.texts])).collect();
        fsio::sha256_hex(json!([name, rows]).to_string().as_bytes())
    };
    tasks.iter().map(of).collect()
}
