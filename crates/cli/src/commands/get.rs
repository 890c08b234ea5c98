//! `temper get`: downloads a model or a data set. The only command that uses the network.

use std::path::PathBuf;

use hub::{LeftOut, Outcome, Reason, Request, Settings};
use hub_local::{Environment, Kind, PREFIX, Reference};

use super::print;
use crate::args::{GetArgs, LogStyle};
use crate::failure::{Failure, Result};
use crate::render::download::DownloadProgress;
use crate::render::table;

pub(crate) fn run(args: &GetArgs, log: LogStyle) -> Result<()> {
    let written = &args.repository;
    let reference = Reference::parse(written).ok_or_else(|| {
        Failure::input(
            format!("not a repository on the Hugging Face hub: `{}`", written.escape_debug()),
            format!("write {PREFIX}OWNER/MODEL or {PREFIX}datasets/OWNER/NAME"),
        )
    })??;
    let to = args.to.clone().unwrap_or_else(|| PathBuf::from(reference.directory()));
    let request = Request { reference, to, files: args.files.clone() };
    let settings = Settings::read(&Environment::of_process())?;
    let outcome = hub::get(&settings, &request, &mut DownloadProgress::new(log))?;
    print(&summary(args, &request.reference, &outcome))
}

fn summary(args: &GetArgs, reference: &Reference, outcome: &Outcome) -> String {
    let dir = outcome.dir.display();
    let already = if outcome.n_transferred == 0 { ", all there and checked" } else { "" };
    let mut text = format!(
        "{dir}: {}, {}, revision {}{already}\n",
        table::counted(outcome.n_files as u64, "file"),
        table::bytes(outcome.bytes),
        outcome.revision,
    );
    for reason in [Reason::Format, Reason::Copy, Reason::OnRequest] {
        let names: Vec<String> =
            outcome.left_out.iter().filter(|file| file.reason == reason).map(named).collect();
        if !names.is_empty() {
            text += &format!("left out: {} ({})\n", names.join(", "), reason.text());
        }
    }
    let short = Reference { revision: None, ..reference.clone() };
    let place = if args.to.is_some() { dir.to_string() } else { short.to_string() };
    text + &match reference.kind {
        Kind::Model => {
            format!("use it as a model: `start = \"{place}\"` in a recipe, {place} in a command\n")
        }
        Kind::Dataset => format!("use it as data: `path = \"{place}\"` in a recipe\n"),
    }
}

/// A file with its size. Names come from a server, and were checked to have no control characters.
fn named(file: &LeftOut) -> String {
    format!("{} {}", file.path, table::bytes(file.bytes))
}
