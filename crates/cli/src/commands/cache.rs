//! `temper cache`: the tokenized data and trained tokenizers that runs share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fsio::Lock;
use report::{runs_in, size_of};

use super::confirm::confirmed;
use super::estimates::ESTIMATES;
use super::print;
use crate::args::{CacheArgs, CacheCommand};
use crate::failure::{Failure, Result};
use crate::render::table;

/// Directory of the cache among the runs.
const CACHE_DIR: &str = ".cache";
/// Locks of caches that are being made.
const LOCKS: &str = "locks";
/// What Temper did not write.
const FOREIGN: &str = "not from Temper (kept)";

pub(crate) fn run(args: &CacheArgs) -> Result<()> {
    let cache = args.dir.join(CACHE_DIR);
    if std::fs::symlink_metadata(&cache).is_ok_and(|found| found.is_symlink()) {
        return Err(Failure::input(
            format!("a link, not the cache of these runs: `{}`", cache.display()),
            "name the runs that it leads to with --dir, or remove the link by hand",
        ));
    }
    let entries = entries(&cache);
    if entries.is_empty() {
        return print("the cache is empty\n");
    }
    let own = entries.iter().filter(|entry| entry.is_removed());
    let total = own.map(|entry| entry.bytes).fold(0, u64::saturating_add);
    print(&listing(&cache, &entries, total))?;
    match args.command {
        None => Ok(()),
        Some(CacheCommand::Clear { yes }) => clear(&args.dir, &cache, &entries, total, yes),
    }
}

/// A file or directory of the cache.
struct Entry {
    path: PathBuf,
    kind: &'static str,
    bytes: u64,
}

impl Entry {
    /// Whether `clear` removes it. Locks stay: a process that waits for one has it open.
    fn is_removed(&self) -> bool {
        ![LOCKS, FOREIGN].contains(&self.kind)
    }
}

fn entries(cache: &Path) -> Vec<Entry> {
    let found = std::fs::read_dir(cache).into_iter().flatten().flatten();
    let mut entries: Vec<Entry> = found
        .map(|entry| {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let file = entry.metadata().map_or(0, |metadata| metadata.len());
            let bytes = if is_dir { size_of(&path) } else { file };
            Entry { kind: kind_of(&name), bytes, path }
        })
        .collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

fn kind_of(name: &str) -> &'static str {
    let is_hash = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    match name {
        _ if is_hash => "tokenized data",
        _ if name.starts_with("tokenizer-") => "trained tokenizers",
        "contamination" => "overlaps with tasks",
        ESTIMATES => "estimated times",
        "file-hashes" => "hashes of files",
        LOCKS => "locks",
        _ if fsio::is_stale_tmp(name) => "leftovers of killed processes",
        _ => FOREIGN,
    }
}

fn listing(cache: &Path, entries: &[Entry], total: u64) -> String {
    let mut kinds: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for entry in entries {
        let (n, bytes) = kinds.entry(entry.kind).or_default();
        *n += 1;
        *bytes = bytes.saturating_add(entry.bytes);
    }
    let mut rows: Vec<Vec<String>> = kinds
        .iter()
        .map(|(kind, (n, bytes))| {
            vec![format!("  {kind}"), table::thousands(*n), table::bytes(*bytes)]
        })
        .collect();
    rows.push(vec!["  all".to_owned(), String::new(), table::bytes(total)]);
    format!("{}\n{}", cache.display(), table::columns(&rows, &[1, 2]))
}

fn clear(runs: &Path, cache: &Path, entries: &[Entry], total: u64, yes: bool) -> Result<()> {
    check_unused(runs, cache)?;
    if !confirmed(&format!("remove {}?", table::bytes(total)), yes)? {
        return print("nothing was removed\n");
    }
    // A run may have started while the question was open.
    check_unused(runs, cache)?;
    for entry in entries.iter().filter(|entry| entry.is_removed()) {
        let is_dir = std::fs::symlink_metadata(&entry.path).is_ok_and(|found| found.is_dir());
        if is_dir { fsio::remove_dir_all(&entry.path)? } else { fsio::remove_file(&entry.path)? }
    }
    print(&format!("removed {}\n", table::bytes(total)))
}

/// Refuses a cache that a run in progress reads, or that a process is making.
fn check_unused(runs: &Path, cache: &Path) -> Result<()> {
    let running = runs_in(runs).into_iter().find(|run| Lock::holder(run.join("LOCK")).is_some());
    if let Some(run) = running {
        return Err(Failure::input(
            format!("a run is in progress: `{}`", run.display()),
            "it reads the cache; wait until it has finished, or stop it with ctrl-C",
        ));
    }
    let locks = std::fs::read_dir(cache.join(LOCKS)).into_iter().flatten().flatten();
    let held = locks.map(|entry| entry.path()).find(|lock| Lock::holder(lock).is_some());
    match held {
        Some(_) => Err(Failure::input(
            "a process is preparing data in the cache",
            "wait until it has finished, or stop it with ctrl-C",
        )),
        None => Ok(()),
    }
}
