//! `temper report`: writes the page of a run.

use std::path::Path;

use report::{PAGE_FILE, PAGE_START, RunData};

use super::runs::locate;
use super::{print, print_as_is};
use crate::args::ReportArgs;
use crate::failure::Result;

pub(crate) fn run(args: &ReportArgs) -> Result<()> {
    let run = RunData::read(&locate(Path::new(::plan::RUNS_DIR), &args.run)?)?;
    let page = report::page(&run);
    if args.out.as_deref() == Some(Path::new("-")) {
        return print_as_is(&page);
    }
    let path = match &args.out {
        Some(path) => {
            fsio::check_replaceable(path, PAGE_START.as_bytes())?;
            path.clone()
        }
        None => run.path.join(PAGE_FILE),
    };
    fsio::write_atomic(&path, page)?;
    print(&format!("{}\n", path.display()))
}
