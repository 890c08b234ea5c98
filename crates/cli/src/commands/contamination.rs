//! `temper data contamination`: rows of data files that share text with the rows of tasks.

use std::path::PathBuf;

use data::BytesRead;
use hub_local::Need;
use serde_json::json;
use tasks::{Contamination, Task, TaskOptions};

use super::print;
use crate::args::ContaminationArgs;
use crate::failure::Result;

pub(crate) fn run(args: &ContaminationArgs) -> Result<()> {
    let data_dir =
        args.data_dir.clone().or_else(|| std::env::var_os("TEMPER_DATA").map(PathBuf::from));
    let options = TaskOptions { data_dir, limit: args.limit, shots: 0 };
    let mut contamination = Contamination::default();
    for name in &args.task {
        let task = Task::open(name)?;
        contamination.add_task(task.name(), &task.texts(&options)?);
    }
    for file in &args.files {
        let files = data::expand(&plan::local_copy(file, Need::Data)?, None, None)?;
        for file in &files.paths {
            for row in data::read_rows(file, None, None, &BytesRead::default())? {
                let row = row?;
                contamination.compare(&row.location.to_string(), &tasks::texts_of(&row.columns));
            }
        }
    }
    let mut text = String::new();
    for overlap in contamination.into_reports() {
        let line = if args.json { json!(overlap).to_string() } else { overlap.sentence() };
        text += &format!("{line}\n");
    }
    print(&text)
}
